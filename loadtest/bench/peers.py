"""The proxies and the upstream: how each is configured, started and checked.

A proxy runs only while it is measured, afresh each time: the idle ones would take turns on its core
(all of them have timers), and memory would tell of the measurement before.
"""

import contextlib
import http.client
import pathlib
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import envoy, system

HERE = pathlib.Path(__file__).resolve().parent
JOB = HERE.parent / "job"


class Void(Exception):
    """A measurement that may not be used, with the reason."""


@dataclass(frozen=True)
class Peer:
    name: str
    config: str
    # The command, given the configuration file and the number of workers.
    command: Callable[[str, int], list[str]]
    version: str
    # Whether legacy answers when `new` said 503.
    substitutes: bool = True

    @property
    def is_cutover(self) -> bool:
        return self.config == "cutover.yaml"


@dataclass(frozen=True)
class Running:
    peer: Peer
    pid: int
    ports: dict[str, int]
    command: list[str]

    def metrics(self) -> list[str]:
        """Samples of cutover's admin port; of the other peers nothing is asked."""
        url = f"http://127.0.0.1:{self.ports['ADMIN']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode().splitlines()


def peers(names: list[str], binary: pathlib.Path, baseline: pathlib.Path | None) -> dict[str, Peer]:
    """Those that can be had, in the order in which the first round measures them."""
    program, first_line = system.program, system.first_line

    def cutover(name: str, binary: pathlib.Path) -> Peer:
        return Peer(
            name,
            "cutover.yaml",
            lambda file, workers: [str(binary), "serve", "--config", file],
            f"{first_line(str(binary), '--version')}, sha256 {system.sha256(binary)}",
        )

    available = {}
    if "nginx" in names:
        available["nginx"] = Peer(
            "nginx",
            "nginx.conf",
            lambda file, workers: [program("nginx"), "-c", file],
            first_line(program("nginx"), "-v"),
        )
    if "haproxy" in names:
        available["haproxy"] = Peer(
            "haproxy",
            "haproxy.cfg",
            lambda file, workers: [program("haproxy"), "-db", "-f", file],
            first_line(program("haproxy"), "-v"),
            substitutes=False,
        )
    if "envoy" in names and (path := envoy.locate()):
        available["envoy"] = Peer(
            "envoy",
            "envoy.yaml",
            lambda file, workers: [str(path), "--config-path", file, "--concurrency", str(workers)]
            + ["--disable-hot-restart", "--log-level", "error"],
            first_line(str(path), "--version"),
        )
    if "cutover" in names:
        available["cutover"] = cutover("cutover", binary)
    if baseline:
        available["baseline"] = cutover("baseline", baseline)
    return available


class Stand:
    """The upstream, running until the stack that owns it unwinds, and whatever is put before it."""

    def __init__(self, stack: contextlib.ExitStack, cores: system.Cores) -> None:
        self.stack = stack
        self.cores = cores
        created = tempfile.TemporaryDirectory(prefix="cutover-loadtest-")
        self.directory = pathlib.Path(stack.enter_context(created))
        # nginx serves files as another user, when root starts it.
        self.directory.chmod(0o755)
        self.ports = system.free_ports(["LEGACY", "NEW", "SINK"])
        self.prepare_files()
        self.launch(cores.load, "SINK", [sys.executable, str(HERE / "sink.py"), str(self.ports["SINK"])])
        file = self.fill("upstream.conf", self.directory, {"WORKERS": cores.load_threads})
        self.upstream = self.launch(cores.load, "LEGACY", [system.program("nginx"), "-c", file]).pid

    def prepare_files(self) -> None:
        bulk = self.directory / "bulk"
        bulk.mkdir()
        for name, size in {"64m": 64 << 20, "1g": 1 << 30}.items():
            # Holes: neither the disk nor the upstream's reading of it is to be measured.
            with open(bulk / name, "wb") as file:
                file.truncate(size)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            + ["-keyout", "edge.key", "-out", "edge.crt"],
            cwd=self.directory,
            check=True,
            stderr=subprocess.DEVNULL,
        )
        both = [(self.directory / name).read_text() for name in ("edge.crt", "edge.key")]
        (self.directory / "edge.pem").write_text("".join(both))

    @contextlib.contextmanager
    def running(self, peer: Peer, workers: int = 1, many: bool = False) -> Iterator[Running]:
        """The peer alone, before the upstream; cutover perhaps with far more than the job needs."""
        with contextlib.ExitStack() as stack:
            own = stack.enter_context(tempfile.TemporaryDirectory(prefix=peer.name, dir=self.directory))
            ports = system.free_ports(["PORT", "TLS_PORT", "ADMIN"])
            file = self.fill(peer.config, pathlib.Path(own), {**ports, "WORKERS": workers, **unrelated(many)})
            command = peer.command(file, workers)
            cores = self.cores.proxy if workers == 1 else self.cores.two
            with open(pathlib.Path(own, "log"), "w+") as log:
                process = system.start(cores, command, pathlib.Path(own), log)
                stack.callback(system.stop, process)
                if not system.wait_for_port(process, ports["PORT"]):
                    log.seek(0)
                    raise Void(f"{peer.name} does not listen:\n{log.read()}")
                yield Running(peer, process.pid, ports, command)
                if process.poll() is not None:
                    raise Void(f"{peer.name} has ended by itself, with {process.returncode}")

    def launch(self, cores: str, port: str, command: list[str]) -> subprocess.Popen:
        log = self.stack.enter_context(open(self.directory / f"{port}.log", "w+"))
        process = system.start(cores, command, self.directory, log)
        self.stack.callback(system.stop, process)
        if not system.wait_for_port(process, self.ports[port]):
            log.seek(0)
            sys.exit(f"loadtest: {command[0]} does not listen:\n{log.read()}")
        return process

    def fill(self, name: str, directory: pathlib.Path, values: dict[str, object]) -> str:
        """Writes a file of `job/` with everything that stands between @ signs replaced."""
        text = (JOB / name).read_text()
        fixed = {
            **self.ports,
            "DIRECTORY": directory,
            "FILES": self.directory,
            "LEGACY_KIBIBYTE": "L" * 1024,
            "NEW_KIBIBYTE": "N" * 1024,
            "64_KIBIBYTES": '"' + "$kibibyte" * 64 + '"',
        }
        for key, value in {**fixed, **values}.items():
            text = text.replace(f"@{key}@", str(value))
        file = directory / name
        file.write_text(text)
        return str(file)


def unrelated(many: bool) -> dict[str, str]:
    """What a large configuration has besides: 1,000 splits, and 10 routes to each."""
    split = '  other-%d: {legacy: legacy-api, new: new-api, share: 10%%, key: [{header: X-User-Id}]}'
    route = "  - {path_prefix: /other/%d, split: other-%d}"
    return {
        "OTHER_SPLITS": "\n".join(split % number for number in range(1000 * many)),
        "OTHER_ROUTES": "\n".join(route % (number, number // 10) for number in range(10000 * many)),
    }


def check(running: Running) -> None:
    """That a peer does the job: the share, stickiness, whole bodies, and legacy as a substitute."""
    name = running.peer.name
    client = http.client.HTTPConnection("127.0.0.1", running.ports["PORT"], timeout=5)

    def ask(method: str, path: str, user: str) -> bytes:
        body = b"x" * 4096 if method == "POST" else None
        client.request(method, path, body, {"X-User-Id": user})
        response = client.getresponse()
        answer = response.read()
        if response.status != 200:
            raise Void(f"{name} answered {response.status} to {method} {path}")
        return answer

    users = [f"user-{number}" for number in range(1, 1001)]
    arms = [ask("GET", "/1k", user)[:1] for user in users]
    share = arms.count(b"N") / len(arms)
    if not 0.06 < share < 0.14:
        raise Void(f"{name} sends {share:.1%} of the keys to `new`, not 10 %")
    if arms != [ask("GET", "/1k", user)[:1] for user in users]:
        raise Void(f"{name} does not keep sessions on their arm")
    for method, path, size in (("GET", "/1k", 1024), ("GET", "/64k", 65536), ("POST", "/post", None)):
        length = len(ask(method, path, "user-1"))
        if size is not None and length != size:
            raise Void(f"{name} answered {method} {path} with {length} bytes")
    if running.peer.substitutes:
        user = users[arms.index(b"N")]
        if ask("GET", "/new-fails", user) != b"legacy\n":
            raise Void(f"{name} let `new` answer where it should not have been able to")
    client.close()


def check_after(running: Running) -> None:
    """That cutover still did the whole job at the end: a rollback makes everything cheaper."""
    if not running.peer.is_cutover:
        return
    if 'cutover_split_share_ratio{split="api"} 0.1' not in running.metrics():
        raise Void(f"{running.peer.name} no longer sends 10 % to `new`")
