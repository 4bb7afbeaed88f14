"""Processes, their time and memory, and the machine.

A proxy may be several processes (nginx), so all accounting is over the whole tree below the one that
was started. It comes from /proc and not from the generator's clock: that is what stays comparable
when the load side is the limit.
"""

import contextlib
import datetime
import hashlib
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time

# Where Debian keeps servers, whether or not the user's path has it.
SEARCHED = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "curl": "curl",
    "openssl": "openssl",
}


class Cores:
    """Who runs where. With four cores or more the load side has two, and never shares."""

    def __init__(self) -> None:
        available = sorted(os.sched_getaffinity(0))
        if len(available) < 2:
            sys.exit("loadtest: two cores are needed, one of them for the proxy alone")
        names = [str(core) for core in available]
        self.proxy = names[0]
        self.two = ",".join(names[:2])
        self.shared = len(names) < 4
        self.load = names[1] if self.shared else ",".join(names[2:4])
        # What loads a proxy on two cores: with only two, everything is on both.
        self.load_for_two = self.two if self.shared else self.load
        self.load_threads = 1 if self.shared else 2


def start(cores: str, command: list[str], directory: pathlib.Path, log) -> subprocess.Popen:
    return subprocess.Popen(
        ["taskset", "--cpu-list", cores, *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=directory,
    )


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_port(process: subprocess.Popen, port: int) -> bool:
    until = time.monotonic() + 15
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        time.sleep(0.02)
    return False


def free_ports(names: list[str]) -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return {name: bound.getsockname()[1] for name, bound in zip(names, sockets)}


def cpu_seconds(root: int) -> tuple[float, float]:
    """User and system time of a process and of all that descend from it."""
    tick = os.sysconf("SC_CLK_TCK")
    user = system = 0
    for pid in process_tree(root):
        fields = stat_fields(pid)
        # With those of its children that have ended and been waited for.
        user += int(fields[11]) + int(fields[13])
        system += int(fields[12]) + int(fields[14])
    return user / tick, system / tick


def memory_kib(root: int) -> dict[str, int]:
    """Resident memory, the same with shared pages counted once, and the highest since the reset."""
    sums = {"resident": 0, "proportional": 0, "peak": 0}
    sources = {"Rss": "resident", "Pss": "proportional", "VmHWM": "peak"}
    for pid in process_tree(root):
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        lines += pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        for line in lines:
            name, _, value = line.partition(":")
            if name in sources:
                sums[sources[name]] += int(value.split()[0])
    return sums


def reset_peak(root: int) -> None:
    for pid in process_tree(root):
        pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


def kernel_tcp_kib() -> int:
    """Socket buffers of all TCP connections of the machine, which no process is charged for."""
    line = next(
        line
        for line in pathlib.Path("/proc/net/sockstat").read_text().splitlines()
        if line.startswith("TCP:")
    )
    return int(line.split()[-1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def process_tree(root: int) -> list[int]:
    parents = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int(stat_fields(int(entry.name))[1])
    tree = [root]
    for pid in tree:
        tree.extend(child for child, parent in parents.items() if parent == pid)
    return tree


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second may hold blanks."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def machine() -> dict:
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "load_average_before": os.getloadavg(),
    }


def first_line(*command: str) -> str:
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.stdout.strip().partition("\n")[0]


def commit(repository: pathlib.Path) -> str:
    git = ("git", "-C", str(repository))
    changed = first_line(*git, "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock")
    return first_line(*git, "rev-parse", "HEAD") + ("+changes" if changed else "")


def sha256(file: pathlib.Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def program(name: str) -> str:
    return shutil.which(name, path=SEARCHED) or name


def install_missing() -> None:
    missing = [package for name, package in PACKAGES.items() if not shutil.which(name, path=SEARCHED)]
    if not missing:
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(f"loadtest: please install {' '.join(missing)}")
    # Debian starts a server when it is installed, unless this file says no.
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    is_ours = not policy.exists()
    if is_ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run(
            [*apt, "install", "--no-install-recommends", *missing],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    finally:
        if is_ours:
            policy.unlink()
