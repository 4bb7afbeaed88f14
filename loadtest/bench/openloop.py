"""A load generator with a fixed rate, whatever the server does: latency as users feel it.

wrk has no constant rate, and h2load's `--rps` sends the requests of all its connections at the same
moments, so its median is that of a burst. Here requests are due at equal distances, each connection
has its own thread and takes its turn, and latency counts from the moment a request was *due*: one
that had to wait for a slow answer before it counts with its wait (no coordinated omission).

What the generator itself adds (waking up, tens of microseconds) is in every figure alike; so
compare with the direct figure of the same run.

    python3 openloop.py PORT RATE SECONDS      prints one line of JSON
"""

import contextlib
import gc
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Callable

CONNECTIONS = 64
# Sends one request, reads its answer, and raises OSError or ValueError if that is not a 200.
Exchange = Callable[[], None]


def measure(connect: Callable[[int], Exchange], rate: float, seconds: float) -> dict:
    """Runs `rate × seconds` requests over connections that `connect` opens by their number."""
    # The kernel may wake a sleeper up to 50 µs late unless told otherwise; threads inherit it.
    with contextlib.suppress(OSError), open("/proc/self/timerslack_ns", "w") as slack:
        slack.write("1")
    gc.disable()
    exchanges = [connect(number) for number in range(CONNECTIONS)]
    latencies: list[list[float]] = [[] for _ in exchanges]
    failures: list[str] = []
    start = time.perf_counter() + 0.1

    def run(number: int) -> None:
        exchange, record = exchanges[number], latencies[number].append
        clock, sleep = time.perf_counter, time.sleep
        due, step, end = start + number / rate, CONNECTIONS / rate, start + seconds
        while due < end:
            wait = due - clock()
            if wait > 0:
                sleep(wait)
            try:
                exchange()
            except (OSError, ValueError) as error:
                failures.append(repr(error))
                return
            record(clock() - due)
            due += step

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured = sorted(latency for one in latencies for latency in one)
    return {
        "requests": len(measured),
        "seconds": time.perf_counter() - start,
        "errors": len(failures),
        "error": failures[0] if failures else None,
        **{f"{name}_us": percentile(measured, part) * 1e6 for name, part in PERCENTILES.items()},
    }


PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}


def percentile(ordered: list[float], part: float) -> float:
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def bare(port: int) -> Callable[[int], Exchange]:
    """The cheapest client that there is, for 5,000 requests a second from one core."""

    def connect(number: int) -> Exchange:
        stream = socket.create_connection(("127.0.0.1", port), 5)
        stream.settimeout(5)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = (
            f"GET /1k HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-User-Id: user-{number}\r\n\r\n"
        ).encode()

        def exchange() -> None:
            stream.sendall(request)
            answer = stream.recv(65536)
            while (head := answer.find(b"\r\n\r\n")) < 0 or len(answer) < head + 4 + 1024:
                piece = stream.recv(65536)
                if not piece:
                    raise ConnectionError("closed before the end of an answer")
                answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ValueError(answer[:40])

        return exchange

    return connect


if __name__ == "__main__":
    print(json.dumps(measure(bare(int(sys.argv[1])), float(sys.argv[2]), float(sys.argv[3]))))
