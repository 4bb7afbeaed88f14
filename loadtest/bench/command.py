"""The command line, and the course of a run."""

import argparse
import contextlib
import os
import pathlib
import signal
import subprocess
import sys

from bench import against, peers, report, system
from bench.scenarios import DIRECT, SCENARIOS, Scenario

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PEERS = ("nginx", "haproxy", "envoy", "cutover")


def main() -> None:
    options = parse_options()
    # A terminated run unwinds like an interrupted one, so nothing that it started outlives it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("loadtest: terminated"))
    if options.against:
        against.run(options)
        return
    for binary in filter(None, (options.binary, options.baseline)):
        if not binary.is_file():
            sys.exit(f"loadtest: {binary} is missing; run `cargo build --release`")
    system.install_missing()
    scenarios = [one for one in SCENARIOS if not options.only or one.name in options.only]
    cores = system.Cores()
    chosen = peers.peers(options.peers, options.binary, options.baseline)
    result = {
        "when": system.now(),
        "command": sys.argv,
        "machine": system.machine(),
        "versions": versions(chosen),
    }
    # This program opens connections and reads /proc: not on the core of the proxy.
    os.sched_setaffinity(0, [int(core) for core in cores.load.split(",")])
    with contextlib.ExitStack() as stack:
        stand = peers.Stand(stack, cores)
        result["commands"] = check(stand, chosen)
        result["rounds"] = rounds(stand, scenarios, list(chosen.values()), options)
    result["load_average_after"] = os.getloadavg()
    text = report.table(result, scenarios)
    print(text)
    if not options.discard:
        print(f"\nwritten to {report.save(result, text)}")
    if any("void" in one for one in result["rounds"]):
        sys.exit("loadtest: some measurements are void")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="CPU time, memory and latency of cutover and its peers, in one run.",
        epilog="scenarios: " + ", ".join(one.name for one in SCENARIOS),
    )
    parser.add_argument("--binary", type=file, default=REPOSITORY / "target/release/cutover")
    parser.add_argument("--baseline", type=file, help="a second cutover, to compare two builds")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", help="instead of all scenarios")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="instead of all")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 3")
    parser.add_argument(
        "--seconds", type=int, metavar="N", help="of each measurement (default 4)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second, to try it")
    parser.add_argument("--discard", action="store_true", help="print only, write no result file")
    endpoints = parser.add_argument_group("your own endpoints")
    endpoints.add_argument(
        "--against",
        nargs=2,
        metavar=("DIRECT", "PROXY"),
        help="measure only these two URLs, with GET requests at a fixed rate",
    )
    endpoints.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'")
    endpoints.add_argument("--rate", type=float, default=100, help="requests/s (default 100)")
    endpoints.add_argument(
        "--admin",
        default=os.environ.get("CUTOVER_ADMIN", "http://127.0.0.1:9900"),
        metavar="URL",
        help="cutover's admin port, for percentiles of each arm; a token is taken from CUTOVER_TOKEN",
    )
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    if options.seconds is None:
        options.seconds = 1 if options.quick else 4
    if unknown := {*(options.only or ())} - {one.name for one in SCENARIOS}:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; {parser.epilog}")
    if options.rounds < 1 or options.seconds < 1 or not 0 < options.rate:
        parser.error("rounds, seconds and the rate are positive")
    return options


def file(argument: str) -> pathlib.Path:
    """Absolute, since every peer is started in a directory of its own."""
    return pathlib.Path(argument).resolve()


def versions(chosen: dict[str, peers.Peer]) -> dict:
    return {
        "commit": system.commit(REPOSITORY),
        "peers": {name: peer.version for name, peer in chosen.items()},
        "wrk": system.first_line(system.program("wrk"), "-v"),
        "h2load": system.first_line(system.program("h2load"), "--version"),
        "rustc": system.first_line("rustc", "--version"),
        "python": sys.version.split()[0],
    }


def check(stand: peers.Stand, chosen: dict[str, peers.Peer]) -> dict[str, list[str]]:
    """That each does the job before anything is measured; a run of less is worth nothing."""
    commands = {}
    for name, peer in chosen.items():
        try:
            with stand.running(peer) as running:
                peers.check(running)
                commands[name] = running.command
        except (peers.Void, OSError) as error:
            sys.exit(f"loadtest: {name}: {error}")
    return commands


def rounds(
    stand: peers.Stand,
    scenarios: list[Scenario],
    chosen: list[peers.Peer],
    options: argparse.Namespace,
) -> list[dict]:
    results = []
    for number in range(options.rounds):
        for scenario in scenarios:
            able = [peer for peer in chosen if peer.is_cutover or not scenario.cutover_only]
            order = [DIRECT, *able] if scenario.direct else able
            if not order:
                continue
            # Whoever comes first in one round comes last in another.
            turn = number % len(order)
            for peer in order[turn:] + order[:turn]:
                figures = measure(stand, scenario, peer, options.seconds)
                name = {"round": number + 1, "scenario": scenario.name, "peer": peer.name}
                results.append({**name, **figures})
                first = figures.get(scenario.rows[0].key, 0.0)
                said = figures.get("void") or f"{first:.1f} {scenario.rows[0].unit}"
                print(
                    f"round {number + 1}  {scenario.name:12}  {peer.name:8}  {said}",
                    file=sys.stderr,
                    flush=True,
                )
    return results


def measure(stand: peers.Stand, scenario: Scenario, peer: peers.Peer, seconds: int) -> dict:
    """The figures, or why there are none: one bad minute does not take the whole run with it."""
    try:
        return scenario.measure(stand, peer, seconds)
    except (peers.Void, OSError, ValueError, subprocess.SubprocessError) as error:
        return {"void": str(error)}
