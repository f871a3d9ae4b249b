"""What reading the worst inputs costs: CPU seconds and peak memory at n, 2n, 4n and 10n.

Each line is an input that has many of one thing (tests/support/costly.py), read in a process of its
own. ``x2`` and ``x4`` say by how much the time grows when the input is twice and four times as
large; times are those of the work alone, without the start of the process. Memory is what the work
adds to the process.

Usage: cost.py [-n COUNT] [--check] [NAME...]
"""

from __future__ import annotations

import argparse
import math
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from bpfseal.errors import BpfsealError
from support.costly import FILES, OBJECTS

FACTORS: Final = (1, 2, 4, 10)
COUNT: Final = 3000
_SECONDS: Final = 120
_ADDRESS_SPACE: Final = 6 << 30
"""What one process may use; an input that needs more counts as endless."""
_NOISE: Final = 0.05
"""Seconds below which a ratio says nothing."""
_LINEAR: Final = 3.0
"""Up to so much longer an input twice as large may take."""


def peak_memory() -> int:
    """Return the most bytes that this process has held so far."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def work_of(name: str) -> Callable[[bytes], object]:
    """Return what is done to an input: for objects all up to the loader, for files the parser."""
    if name in FILES:
        return FILES[name].load()
    from bpfseal.loader import generate
    from bpfseal.object import read_object

    def build(data: bytes) -> object:
        return generate(read_object(data, "cost.bpf.o"), "loadtime")

    return build


def run_one(name: str, path: Path) -> None:
    """Do the work of one input and print seconds, bytes and how it ended."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    work, data = work_of(name), path.read_bytes()
    before, started = peak_memory(), time.process_time()
    outcome = "ok"
    try:
        work(data)
    except BpfsealError as error:
        outcome = str(error)
    print(time.process_time() - started, peak_memory() - before, outcome, sep="\t")


def measure(name: str, count: int, folder: Path) -> tuple[int, float, int, str]:
    """Return the size of an input, the seconds and bytes that it takes, and how it ended."""
    path = folder / "input"
    builder = FILES[name].build if name in FILES else OBJECTS[name]
    path.write_bytes(builder(count))
    done = subprocess.run(
        [sys.executable, __file__, "--run", str(path), name],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.splitlines() or [f"more than {_SECONDS} s"]
        return path.stat().st_size, math.inf, 0, lines[-1]
    seconds, memory, outcome = done.stdout.strip().split("\t")
    return path.stat().st_size, float(seconds), int(memory), outcome


def main() -> int:
    """Print the table; return 1 with ``--check`` if a line is not linear."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=COUNT, help="how many things the smallest has")
    parser.add_argument("--check", action="store_true", help="fail if a line is not linear")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="the lines to measure; all by default")
    args = parser.parse_args()
    if args.run:
        run_one(args.names[0], args.run)
        return 0
    title = f"{'input':<30}" + "".join(f"{f'{args.n * f:,}':>9}" for f in FACTORS)
    print(f"{title}{'x2':>6}{'x4':>6}{'file kB':>10}{'MiB':>8}  outcome at the largest")
    failed = []
    with tempfile.TemporaryDirectory() as name:
        for what in args.names or (*OBJECTS, *FILES):
            results = [measure(what, args.n * factor, Path(name)) for factor in FACTORS]
            times = [seconds for _, seconds, _, _ in results]
            size, _, memory, outcome = results[-1]
            base = max(times[0], _NOISE)
            x2, x4 = times[1] / base, times[2] / base
            cells = "".join(f"{seconds:>9.2f}" for seconds in times)
            print(
                f"{what:<30}{cells}{x2:>6.1f}{x4:>6.1f}{size / 1000:>10,.0f}"
                f"{memory / 2**20:>8,.0f}  {outcome[:60]}",
                flush=True,
            )
            if x4 > _LINEAR * 2 or memory > 20 * size + 100_000_000:
                failed.append(what)
    if failed and args.check:
        print(f"not linear: {', '.join(failed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
