"""The two scenarios about memory: connections that idle, and bodies that do not end soon.

The kernel charges no process for socket buffers, so a proxy could look small by leaving everything
there; they are counted beside the resident memory, and told in the raw file. So is the memory with
shared pages counted once, of which several processes would else look larger than they are.
"""

import contextlib
import socket
import subprocess
import time

from bench import system
from bench.peers import Peer, Running, Stand, Void, check_after

IDLE = 5000
REST_SECONDS = 5
MIB = 1024


def idle(stand: Stand, peer: Peer, seconds: int) -> dict:
    """Memory with connections that have had one request each, at once and after a rest."""
    with stand.running(peer) as running, contextlib.ExitStack() as stack:
        # A proxy's own upstream connections and first allocations are not the idle ones'.
        with contextlib.closing(ask_once(running, 0)):
            pass
        empty, empty_kernel = system.memory_kib(running.pid), system.kernel_tcp_kib()
        streams = [
            stack.enter_context(contextlib.closing(ask_once(running, number)))
            for number in range(IDLE)
        ]
        used = system.memory_kib(running.pid)
        time.sleep(REST_SECONDS)
        rested, rested_kernel = system.memory_kib(running.pid), system.kernel_tcp_kib()
        for stream in streams:
            stream.setblocking(False)
        if lost := sum(not is_open(stream) for stream in streams):
            raise Void(f"{peer.name} closed {lost} of {IDLE} idle connections")
        check_after(running)
    return {
        "empty_mib": empty["resident"] / MIB,
        "idle_mib": used["resident"] / MIB,
        "rested_mib": rested["resident"] / MIB,
        "rested_proportional_mib": rested["proportional"] / MIB,
        "kernel_tcp_mib": (rested_kernel - empty_kernel) / MIB,
        "kib_per_connection": (rested["resident"] - empty["resident"]) / IDLE,
    }


def ask_once(running: Running, number: int) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", running.ports["PORT"]), 10)
    head = f"GET /1k HTTP/1.1\r\nHost: localhost\r\nX-User-Id: user-{number}\r\n\r\n"
    stream.sendall(head.encode())
    answer = b""
    while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + 1024:
        piece = stream.recv(65536)
        if not piece:
            raise Void(f"{running.peer.name} closed connection {number} before its answer")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Void(f"{running.peer.name} answered {answer[:40]!r}")
    return stream


def is_open(stream: socket.socket) -> bool:
    try:
        return stream.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def bulk(stand: Stand, peer: Peer, seconds: int) -> dict:
    """The highest memory of 1 GiB in either direction, next to that of 64 MiB."""
    with stand.running(peer) as running:
        result: dict = {}
        for direction, carry in (("download", download), ("upload", upload)):
            peaks = {}
            for size in ("64m", "1g"):
                system.reset_peak(running.pid)
                before, began = sum(system.cpu_seconds(running.pid)), time.monotonic()
                carry(stand, running, size)
                wall = time.monotonic() - began
                peaks[size] = system.memory_kib(running.pid)["peak"] / MIB
                result[f"{direction}_cpu_seconds"] = sum(system.cpu_seconds(running.pid)) - before
                result[f"{direction}_seconds"] = wall
            result[f"{direction}_peak_mib"] = peaks["1g"]
            result[f"{direction}_peak_of_64_mib"] = peaks["64m"]
            result[f"{direction}_growth_mib"] = peaks["1g"] - peaks["64m"]
        check_after(running)
    result["growth_mib"] = max(result["download_growth_mib"], result["upload_growth_mib"])
    return result


def download(stand: Stand, running: Running, size: str) -> None:
    curl(stand, running, f"/bulk/{size}", ["--output", "/dev/null"], size)


def upload(stand: Stand, running: Running, size: str) -> None:
    file = stand.directory / "bulk" / size
    # Without Expect, with which some proxies would wait for a 100 that others do not send.
    options = ["--upload-file", str(file), "--header", "Expect:", "--output", "/dev/null"]
    curl(stand, running, "/bulk/upload", options, size)


def curl(stand: Stand, running: Running, path: str, options: list[str], size: str) -> None:
    command = ["curl", "--silent", "--show-error", "--header", "X-User-Id: user-1", *options]
    command += ["--write-out", "%{http_code} %{size_download} %{size_upload}"]
    command += ["--max-time", "60", f"http://127.0.0.1:{running.ports['PORT']}{path}"]
    done = subprocess.run(
        ["taskset", "--cpu-list", stand.cores.load, *command], capture_output=True, text=True
    )
    status, received, sent = (done.stdout.split() + ["", "", ""])[:3]
    carried = received if path != "/bulk/upload" else sent
    expected = {"64m": 64 << 20, "1g": 1 << 30}[size]
    if done.returncode or status != "200" or carried != str(expected):
        raise Void(f"{running.peer.name}: {path} of {size}: {done.stdout} {done.stderr.strip()}")
