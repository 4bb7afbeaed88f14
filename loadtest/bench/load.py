"""The load generators, read by what they print.

wrk sends the requests of a thousand sessions in turn. h2load does HTTP/2, but can send only one
header to all; so there all requests are of one session. The open loop is our own (openloop.py says
why).
"""

import json
import pathlib
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field

from bench import system

HERE = pathlib.Path(__file__).resolve().parent
SESSION = "user-1"


@dataclass(frozen=True)
class Load:
    """What a generator has done, and what it cost the load side."""

    requests: int
    seconds: float
    errors: int
    # Processor time of the generator alone.
    cpu_seconds: float
    command: list[str]
    latency: dict[str, float] = field(default_factory=dict)


def wrk(
    cores: str,
    url: str,
    seconds: int,
    method: str,
    path: str,
    connections: int,
    threads: int = 1,
    reconnect: bool = False,
) -> Load:
    command = [system.program("wrk"), "--threads", str(threads), "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s"]
    command += ["--script", str(HERE.parent / "job" / "load.lua"), url, "--", method, path]
    command += ["close"] if reconnect else []
    output, cpu = run(cores, command, seconds)
    line = next(line for line in output.splitlines() if line.startswith("SUMMARY "))
    summary = json.loads(line.removeprefix("SUMMARY "))
    latency = {name: value for name, value in summary.items() if name.startswith("p")}
    return Load(
        summary["requests"], summary["seconds"], summary["errors"], cpu, command, latency
    )


def h2load(cores: str, url: str, seconds: int, connections: int, streams: int) -> Load:
    command = [system.program("h2load"), "--clients", str(connections)]
    command += ["--max-concurrent-streams", str(streams), "--duration", str(seconds)]
    # What wrk and each of the peers agree on by themselves.
    command += ["--tls13-ciphers", "TLS_AES_256_GCM_SHA384", "--header", f"X-User-Id: {SESSION}", url]
    output, cpu = run(cores, command, seconds)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    if not counts:
        raise ValueError(f"h2load said: {output[-200:]}")
    succeeded, *unwell = map(int, counts.groups())
    return Load(succeeded, float(seconds), sum(unwell), cpu, command)


def open_loop(cores: str, port: int, seconds: int, rate: int) -> Load:
    command = [sys.executable, str(HERE / "openloop.py"), str(port), str(rate), str(seconds)]
    output, cpu = run(cores, command, seconds)
    summary = json.loads(output)
    latency = {name: value for name, value in summary.items() if name.startswith("p")}
    return Load(
        summary["requests"], summary["seconds"], summary["errors"], cpu, command, latency
    )


def run(cores: str, command: list[str], seconds: int) -> tuple[str, float]:
    before = own_children()
    done = subprocess.run(
        ["taskset", "--cpu-list", cores, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + 30,
    )
    if done.returncode:
        raise ValueError(f"{command[0]} ended with {done.returncode}: {done.stdout[-200:]}")
    return done.stdout, own_children() - before


def own_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Processor time of a proxy, the upstream and the generator between begin and end."""

    def __init__(self, proxy: int, upstream: int) -> None:
        self.trees = {"proxy": proxy, "upstream": upstream}
        self.before = {name: system.cpu_seconds(pid) for name, pid in self.trees.items()}
        self.began = time.monotonic()

    def end(self, load: Load, load_cores: int, proxy_cores: int = 1) -> dict:
        wall = time.monotonic() - self.began
        spent = {
            name: [later - earlier for earlier, later in zip(self.before[name], system.cpu_seconds(pid))]
            for name, pid in self.trees.items()
        }
        user, system_time = spent["proxy"]
        return {
            "requests": load.requests,
            "requests_per_second": load.requests / load.seconds,
            "user_seconds": round(user, 2),
            "system_seconds": round(system_time, 2),
            "cpu_us_per_request": (user + system_time) * 1e6 / load.requests,
            "proxy_busy": (user + system_time) / wall / proxy_cores,
            "load_busy": (load.cpu_seconds + sum(spent["upstream"])) / wall / load_cores,
            **load.latency,
            "command": load.command,
        }
