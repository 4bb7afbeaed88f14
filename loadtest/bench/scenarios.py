"""What is measured, and how.

Each scenario is a function of a stand and a peer; it starts the peer, and returns raw figures. Its
rows say which of them the table shows.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import held
from bench.load import Load, Meter, h2load, open_loop, wrk
from bench.peers import Peer, Running, Stand, Void, check_after
from bench.system import cpu_seconds

CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 8, 8
ACTIVE = 2000
RATE = 5000
WARM_UP = 1


@dataclass(frozen=True)
class Row:
    label: str
    key: str
    unit: str
    digits: int = 1
    # Whether cutover's figure divided by a peer's means anything.
    ratio: bool = True


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    measure: Callable[[Stand, Peer, int], dict]
    rows: tuple[Row, ...]
    # Whether it is measured without any proxy, too.
    direct: bool = False
    cutover_only: bool = False


DIRECT = Peer("direct", "", lambda file, workers: [], "no proxy")


def closed_loop(generate: Callable[[Stand, Running, int], Load]) -> Callable[[Stand, Peer, int], dict]:
    """One worker on its core, as many requests as it can do: time per request."""

    def measure(stand: Stand, peer: Peer, seconds: int) -> dict:
        with stand.running(peer) as running:
            generate(stand, running, WARM_UP)
            meter = Meter(running.pid, stand.upstream)
            result = meter.end(sound(generate(stand, running, seconds)), stand.cores.load_threads)
            check_after(running)
            return result

    return measure


def sound(load: Load) -> Load:
    if load.errors or not load.requests:
        raise Void(f"{load.errors} of {load.requests + load.errors} requests failed")
    return load


def with_wrk(method: str, path: str, **options) -> Callable[[Stand, Running, int], Load]:
    def generate(stand: Stand, running: Running, seconds: int) -> Load:
        chosen = {"connections": CONNECTIONS, "threads": stand.cores.load_threads, **options}
        secure = chosen.pop("secure", False)
        return wrk(stand.cores.load, url(running, secure), seconds, method, path, **chosen)

    return generate


def url(running: Running, secure: bool) -> str:
    scheme, port = ("https", "TLS_PORT") if secure else ("http", "PORT")
    return f"{scheme}://127.0.0.1:{running.ports[port]}"


def with_h2load(stand: Stand, running: Running, seconds: int) -> Load:
    target = url(running, secure=True) + "/1k"
    return h2load(stand.cores.load, target, seconds, H2_CONNECTIONS, H2_STREAMS)


def many_routes(stand: Stand, peer: Peer, seconds: int) -> dict:
    """A large configuration: what it costs per request, and what it costs without any."""
    with stand.running(peer, many=True) as running:
        generate = with_wrk("GET", "/1k")
        generate(stand, running, WARM_UP)
        before = sum(cpu_seconds(running.pid))
        time.sleep(seconds)
        resting = sum(cpu_seconds(running.pid)) - before
        meter = Meter(running.pid, stand.upstream)
        result = meter.end(sound(generate(stand, running, seconds)), stand.cores.load_threads)
        check_after(running)
        return {**result, "resting_percent": 100 * resting / seconds}


def two_workers(stand: Stand, peer: Peer, seconds: int) -> dict:
    """Two workers on two cores, then one on one, before a load side that is the same for both.

    With fewer than four cores the load has to share the proxy's; then only processor time counts.
    """
    results = {}
    for workers in (2, 1):
        with stand.running(peer, workers) as running:

            def generate(duration: int) -> Load:
                cores = stand.cores.load_for_two
                return wrk(
                    cores, url(running, False), duration, "GET", "/1k", CONNECTIONS, threads=2
                )

            generate(WARM_UP)
            balance: dict = {}
            if peer.is_cutover:
                sample = threading.Timer(seconds / 2, lambda: balance.update(worker_connections(running)))
                sample.start()
            meter = Meter(running.pid, stand.upstream)
            result = meter.end(sound(generate(seconds)), 2, workers)
            check_after(running)
            results[workers] = {**result, **balance}
    two, one = results[2], results[1]
    compared = {"per_cpu_second": one["cpu_us_per_request"] / two["cpu_us_per_request"]}
    if not stand.cores.shared:
        compared["throughput"] = two["requests_per_second"] / one["requests_per_second"]
    return {**two, "one_worker": one, **compared}


def worker_connections(running: Running) -> dict:
    """How evenly cutover's workers share the connections."""
    samples = [line for line in running.metrics() if line.startswith("cutover_client_connections{")]
    counts = [int(line.split()[-1]) for line in samples]
    return {"connections_of_workers": counts, "imbalance": max(counts) / (sum(counts) / len(counts)) - 1}


def latency(stand: Stand, peer: Peer, seconds: int) -> dict:
    """What users wait at a fixed rate that nobody finds hard."""
    if peer is DIRECT:
        port = stand.ports["LEGACY"]
        open_loop(stand.cores.load, port, WARM_UP, RATE)
        load = sound(open_loop(stand.cores.load, port, seconds, RATE))
        return {"requests": load.requests, **load.latency, "command": load.command}
    with stand.running(peer) as running:
        open_loop(stand.cores.load, running.ports["PORT"], WARM_UP, RATE)
        meter = Meter(running.pid, stand.upstream)
        load = open_loop(stand.cores.load, running.ports["PORT"], seconds, RATE)
        result = meter.end(sound(load), stand.cores.load_threads)
        check_after(running)
        return result


CPU = "CPU µs per request"


def cpu(name: str, title: str, generate: Callable[[Stand, Running, int], Load]) -> Scenario:
    return Scenario(name, title, closed_loop(generate), (Row(title, "cpu_us_per_request", CPU),))


SCENARIOS = (
    cpu("get-1k", "1 KiB GET", with_wrk("GET", "/1k")),
    cpu("get-64k", "64 KiB GET", with_wrk("GET", "/64k")),
    cpu("post-4k", "4 KiB POST", with_wrk("POST", "/post")),
    cpu("tls-h1", "TLS, HTTP/1.1, 1 KiB GET", with_wrk("GET", "/1k", secure=True)),
    cpu("tls-h2", "TLS, HTTP/2, 1 KiB GET", with_h2load),
    cpu("connect", "new connection per request", with_wrk("GET", "/1k", reconnect=True)),
    cpu("active-2000", "2,000 active connections", with_wrk("GET", "/1k", connections=ACTIVE)),
    Scenario(
        "many-routes",
        "1 KiB GET, 10,000 routes",
        many_routes,
        (
            Row("1 KiB GET, 10,000 routes and 1,000 splits", "cpu_us_per_request", CPU),
            Row("no request, 10,000 routes and 1,000 splits", "resting_percent", "% of a core"),
        ),
        cutover_only=True,
    ),
    Scenario(
        "two-workers",
        "two workers on two cores",
        two_workers,
        (
            Row("two workers on two cores", "cpu_us_per_request", CPU),
            Row("two workers to one", "per_cpu_second", "× requests per CPU second", 2, ratio=False),
            Row("two workers to one", "throughput", "× requests per second", 2, ratio=False),
            Row("connections of the fuller worker", "imbalance", "above the mean, part", 3, ratio=False),
        ),
    ),
    Scenario(
        "latency",
        f"{RATE} requests/s, open loop",
        latency,
        (
            Row("at 5,000 requests/s", "p50_us", "p50, µs", 0),
            Row("at 5,000 requests/s", "p99_us", "p99, µs", 0),
            Row("at 5,000 requests/s", "p999_us", "p99.9, µs", 0),
            Row("at 5,000 requests/s", "cpu_us_per_request", CPU),
        ),
        direct=True,
    ),
    Scenario(
        "idle",
        "5,000 idle connections",
        held.idle,
        (
            Row("no connection", "empty_mib", "MiB resident"),
            Row("5,000 idle connections", "idle_mib", "MiB resident"),
            Row("the same after 5 s", "rested_mib", "MiB resident"),
            Row("each of them", "kib_per_connection", "KiB resident"),
        ),
    ),
    Scenario(
        "bulk",
        "1 GiB download and upload",
        held.bulk,
        (
            Row("1 GiB download", "download_peak_mib", "MiB at most"),
            Row("1 GiB upload", "upload_peak_mib", "MiB at most"),
            Row("1 GiB rather than 64 MiB", "growth_mib", "MiB more at most", ratio=False),
            Row("1 GiB download", "download_cpu_seconds", "CPU seconds", 2),
            Row("1 GiB upload", "upload_cpu_seconds", "CPU seconds", 2),
        ),
    ),
)
