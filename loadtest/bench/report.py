"""Medians, the table and the raw file.

The table shows medians with the lowest and the highest round, since a median alone does not tell
whether the machine was quiet. The raw file has every measurement, the void ones with their reason.
"""

import datetime
import json
import math
import pathlib
import statistics

from bench.scenarios import Row, Scenario

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "loadtest" / "results"
BASES = ("nginx", "haproxy", "envoy", "direct", "baseline")


def values(rounds: list[dict], scenario: Scenario, peer: str, key: str) -> list[float]:
    return [
        result[key]
        for result in rounds
        if (result["scenario"], result["peer"]) == (scenario.name, peer) and key in result
    ]


def table(result: dict, scenarios: list[Scenario]) -> str:
    """Everything that people read: the machine, the figures, and whether the load side held."""
    rounds, peers = result["rounds"], [*result["versions"]["peers"]]
    if any(scenario.direct for scenario in scenarios):
        peers.insert(0, "direct")
    bases = [name for name in BASES if name in peers] if "cutover" in peers else []
    machine = result["machine"]
    lines = [
        f"{result['when']}, commit {result['versions']['commit'][:9]}, {machine['processor']},"
        f" {machine['cores']} cores, Linux {machine['kernel']};"
        f" load average {machine['load_average_before'][0]:.2f} before,"
        f" {result['load_average_after'][0]:.2f} after.",
        "",
        "Median (lowest–highest).",
        "",
        heading(["", "unit", *peers, *(f"cutover / {base}" for base in bases)]),
    ]
    for scenario in scenarios:
        for row in scenario.rows:
            columns = {name: values(rounds, scenario, name, row.key) for name in peers}
            # Throughput of two workers, where the load needs their cores: not measured by anybody.
            if not any(columns.values()):
                continue
            cells = [cell(columns[name], row) for name in peers]
            ratios = [ratio(columns["cutover"], columns[base], row) for base in bases]
            lines.append(line([row.label, row.unit, *cells, *ratios]))
    lines += ["", "How busy the cores were, proxy / load side, medians:", "", heading(["", *peers])]
    for scenario in scenarios:
        columns = [busy(rounds, scenario, name) for name in peers]
        if any(columns):
            lines.append(line([scenario.title, *columns]))
    void = [
        f"- void: {one['scenario']}, {one['peer']}, round {one['round']}: {one['void']}"
        for one in rounds
        if "void" in one
    ]
    return "\n".join(lines + (["", *void] if void else []))


def heading(names: list[str]) -> str:
    return line(names) + "\n" + line(["---"] * len(names))


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(numbers: list[float], row: Row) -> str:
    if not numbers:
        return ""
    middle, low, high = statistics.median(numbers), min(numbers), max(numbers)
    digits = row.digits
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def ratio(ours: list[float], theirs: list[float], row: Row) -> str:
    if not (row.ratio and ours and theirs and statistics.median(theirs)):
        return ""
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


def busy(rounds: list[dict], scenario: Scenario, peer: str) -> str:
    sides = [values(rounds, scenario, peer, key) for key in ("proxy_busy", "load_busy")]
    if not all(sides):
        return ""
    return " / ".join(f"{statistics.median(side):.0%}" for side in sides)


def save(result: dict, text: str) -> pathlib.Path:
    commit = result["versions"]["commit"][:7]
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d-%H%M")
    path = RESULTS / f"{stamp}-{commit}.json"
    raw = json.dumps(rounded(result), indent=1, ensure_ascii=False)
    # Where the repository and the home lie on this machine is nobody's business.
    raw = raw.replace(f"{REPOSITORY}/", "").replace(str(pathlib.Path.home()), "~")
    path.write_text(raw + "\n")
    path.with_suffix(".md").write_text(text + "\n")
    return path


def rounded(value):
    """Without digits that were never measured."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    return value
