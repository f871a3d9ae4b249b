"""How long it takes to sign many objects: one call of bpfseal beside a call each of the reference.

Both read the objects, make signed loaders of scheme ``loadtime`` (the one that the reference has)
and put them out; process starts and imports count. The rounds alternate, and of each kind the
median counts. For each key there is a further line with all schemes in one bundle, which the
reference cannot do.

Usage: batch_sign.py WORK_DIRECTORY [COUNT [ROUNDS]]
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from debian import FetchError
from fetch_objects import fetch_objects
from reference import Reference

from bpfseal.signing.keygen import generate

KEY_TYPES = ("p256", "rsa2048")
COUNT = 200
ROUNDS = 3


def seconds(work: Callable[[], None]) -> float:
    """Return how long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def sign_ours(objects: list[Path], keys: Path, folder: Path, scheme: str, jobs: int) -> None:
    """Sign all in one call."""
    subprocess.run(
        [
            *(sys.executable, "-m", "bpfseal", "sign", *map(str, objects)),
            *("--private-key", str(keys / "key.pem"), "--certificate", str(keys / "cert.pem")),
            *("--scheme", scheme, "--jobs", str(jobs), "-o", f"{folder}/"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def sign_theirs(reference: Reference, objects: list[Path], keys: Path) -> None:
    """Sign each in a call of its own; the tool takes one object."""
    signing = ("-L", "-S", "-k", str(keys / "key.pem"), "-i", str(keys / "cert.pem"))
    for path in objects:
        done = reference.run(*signing, "gen", "skeleton", str(path))
        if done.returncode:
            raise RuntimeError(f"{path.name}: {done.stderr.strip()}")


def measure(reference: Reference, sources: list[Path], count: int, rounds: int) -> None:
    """Print a table of times and ratios."""
    print(f"{count} objects, {len(sources)} different ones, median of {rounds} rounds")
    print(f"{'key':<8} {'what':<28} {'seconds':>8} {'ratio':>6}")
    for key_type in KEY_TYPES:
        with tempfile.TemporaryDirectory() as name:
            times = measure_key(reference, sources, key_type, Path(name), count, rounds)
        theirs = statistics.median(next(iter(times.values())))
        for what, values in times.items():
            ours = statistics.median(values)
            print(f"{key_type:<8} {what:<28} {ours:8.2f} {ours / theirs:6.2f}")


def measure_key(
    reference: Reference, sources: list[Path], key_type: str, folder: Path, count: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each round by what was done; the reference comes first."""
    pair = generate(key_type, "benchmark")
    (folder / "key.pem").write_bytes(pair.private_key_pem)
    (folder / "cert.pem").write_bytes(pair.certificate_pem)
    objects = []
    for number, source in enumerate(itertools.islice(itertools.cycle(sources), count)):
        objects.append(folder / f"{number:03}-{source.name}")
        objects[-1].symlink_to(source.resolve())
    works = {"reference, a call each": partial(sign_theirs, reference, objects, folder)}
    for scheme, jobs in itertools.product(("loadtime", "all"), (1, 2)):
        work = partial(sign_ours, objects, folder, folder / "signed", scheme, jobs)
        works[f"bpfseal, {scheme}, --jobs {jobs}"] = work
    times: dict[str, list[float]] = {what: [] for what in works}
    for _ in range(rounds):
        for what, work in works.items():
            times[what].append(seconds(work))
    return times


def main(directory: Path, count: int = COUNT, rounds: int = ROUNDS) -> int:
    """Fetch what is needed and measure; 0 if that worked."""
    try:
        reference = Reference(directory)
        fetch_objects("bookworm", "libbpf-tools", directory / "objects")
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    sources = sorted((directory / "objects" / "bookworm-libbpf-tools").glob("*.bpf.o"))
    measure(reference, sources, count, rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
