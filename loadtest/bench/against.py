"""An operator's own endpoints, direct and through a proxy: the before/after table of a migration.

Both URLs get GET requests at the same fixed rate, interleaved in rounds. If cutover's admin port
answers, its histograms say in addition how fast each arm was meanwhile, whoever asked.
"""

import argparse
import http.client
import math
import os
import re
import statistics
import sys
import time
import urllib.parse
import urllib.request
from collections import defaultdict

from bench import openloop

BUCKET = re.compile(
    r'cutover_request_first_byte_seconds_bucket\{split="([^"]*)",arm="(\w+)",le="([^"]*)"\} (\d+)'
)
PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# Cumulative counts by upper limit, of each split and arm.
Histograms = dict[tuple[str, str], dict[float, int]]


def run(options: argparse.Namespace) -> None:
    headers = dict(header.split(":", 1) for header in options.header)
    headers = {name.strip(): value.strip() for name, value in headers.items()}
    sides = dict(zip(("direct", "proxy"), options.against))
    figures: dict[str, list[dict]] = {name: [] for name in sides}
    before = histograms(options.admin)
    for number in range(options.rounds):
        for name in list(sides) if number % 2 == 0 else reversed(sides):
            try:
                result = openloop.measure(connect(sides[name], headers), options.rate, options.seconds)
            except OSError as error:
                sys.exit(f"loadtest: {sides[name]}: {error}")
            if result["errors"]:
                sys.exit(f"loadtest: {name}: {result['errors']} connections failed: {result['error']}")
            figures[name].append(result)
    after = histograms(options.admin)
    print(f"{options.rate:g} requests/s, {options.rounds} rounds of {options.seconds} s, medians, ms\n")
    print("| | p50 | p95 | p99 |\n| --- | --- | --- | --- |")
    medians = {
        name: [statistics.median(one[f"{part}_us"] for one in results) / 1000 for part in PARTS]
        for name, results in figures.items()
    }
    medians["added"] = [through - bare for bare, through in zip(medians["direct"], medians["proxy"])]
    for name, values in medians.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    if before is not None and after is not None:
        for (split, arm), counts in after.items():
            earlier = before.get((split, arm), {})
            grown = {limit: count - earlier.get(limit, 0) for limit, count in counts.items()}
            if total := grown.get(math.inf, 0):
                cells = [f"{quantile(grown, part) * 1000:.2f}" for part in PARTS.values()]
                print(f"| {split}, {arm}: first byte of {total} | " + " | ".join(cells) + " |")


def connect(url: str, headers: dict[str, str]):
    """A connection that stays open, and one GET at a time over it."""
    parts = urllib.parse.urlsplit(url)
    kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(parts.scheme)
    if not kind or not parts.hostname:
        sys.exit(f"loadtest: {url} is no http:// or https:// URL")
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))

    def opened(number: int) -> openloop.Exchange:
        connection = kind(parts.hostname, parts.port, timeout=30)
        connection.connect()

        def exchange() -> None:
            try:
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                answer.read()
            except http.client.HTTPException as error:
                raise ValueError(f"{url}: {error!r}") from error
            if answer.status >= 400:
                raise ValueError(f"{url} answered {answer.status}")

        return exchange

    return opened


def histograms(admin: str) -> Histograms | None:
    """What cutover has counted so far; None if none answers there."""
    # A worker hands over what it has counted in less than a second.
    time.sleep(1)
    request = urllib.request.Request(f"{admin.rstrip('/')}/metrics")
    if token := os.environ.get("CUTOVER_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            text = answer.read().decode()
    except (OSError, ValueError) as error:
        print(f"loadtest: without the arms, for {admin} does not tell: {error}", file=sys.stderr)
        return None
    read: Histograms = defaultdict(dict)
    for split, arm, limit, count in BUCKET.findall(text):
        read[split, arm][float(limit.replace("+Inf", "inf"))] = int(count)
    return read


def quantile(cumulative: dict[float, int], part: float) -> float:
    """Within its bucket by proportion, as Prometheus does it."""
    wanted = part * cumulative[math.inf]
    lower, below = 0.0, 0
    for limit, count in sorted(cumulative.items()):
        if count >= wanted and count > below:
            if limit == math.inf:
                return lower
            return lower + (limit - lower) * (wanted - below) / (count - below)
        lower, below = limit, count
    return lower
