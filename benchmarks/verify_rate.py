"""Verify signed bundles in one process, beside ``openssl cms -verify`` for the same signatures.

bpfseal reads each bundle from its file, checks all digests, verifies the signature and finds out
which kernels load the loader and who checks its metadata there. openssl is a process for each
signature, as in a shell script, and does the signature alone. Both run in turn, in several rounds;
each round's ratio is of the two halves that ran right after each other.

Usage: verify_rate.py [COUNT [ROUNDS]]
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import payload_of, sign_loader
from bpfseal.bundle.store import read_bundle, write_bundle
from bpfseal.bundle.verify import verify_loader
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer

OBJECT = Path(__file__).parents[1] / "examples" / "exectrace.bpf.o"
SCHEMES = ("kfunc", "inline", "loadtime")
TARGET = 20


def main(count: int = 60, rounds: int = 5) -> int:
    """Measure both key types and print the rates; 1 if a ratio is below the target."""
    if shutil.which("openssl") is None:
        print("the openssl command line is missing", file=sys.stderr)
        return 4
    ratios = [measure(key_type, count, rounds) for key_type in ("rsa2048", "p256")]
    return int(min(ratios) < TARGET)


def measure(key_type: str, count: int, rounds: int) -> float:
    """Print the rates for one type of key and return the median ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trusted = prepare(folder, key_type, count)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(timed(lambda: verify_with_bpfseal(folder, trusted, count)))
            theirs.append(timed(lambda: verify_with_openssl(folder, count)))
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    median = statistics.median(ratios)
    print(
        f"{key_type}: bpfseal {count / statistics.median(ours):.0f}/s in one process, "
        f"openssl cms -verify {count / statistics.median(theirs):.0f}/s in processes of its own; "
        f"{median:.1f} times as fast ({min(ratios):.1f} to {max(ratios):.1f} in {rounds} rounds, "
        f"target {TARGET})"
    )
    return median


def prepare(folder: Path, key_type: str, count: int) -> Certificate:
    """Write bundles of one variant each, and what openssl needs to verify the same."""
    pair = generate_key(key_type, "benchmark")
    signer = load_signer(pair.private_key_pem, pair.certificate_pem)
    (folder / "cert.pem").write_bytes(pair.certificate_pem)
    obj = read_object(OBJECT.read_bytes(), OBJECT.name)
    loaders = [generate(obj, scheme) for scheme in SCHEMES]
    for number in range(count):
        signed = sign_loader(SignedLoader(loaders[number % len(loaders)]), signer)
        write_bundle(Bundle("benchmark", (signed,)), folder / f"{number}.bpfseal")
        (folder / f"{number}.cms").write_bytes(signed.signatures[0].cms)
        (folder / f"{number}.payload").write_bytes(payload_of(signed.loader))
    return signer.certificate


def verify_with_bpfseal(folder: Path, trusted: Certificate, count: int) -> None:
    """Read and verify every bundle; an error ends the benchmark."""
    for number in range(count):
        for variant in read_bundle(folder / f"{number}.bpfseal").variants:
            verify_loader(variant, [trusted])


def verify_with_openssl(folder: Path, count: int) -> None:
    """Verify every signature; an error ends the benchmark."""
    options = ("-verify", "-binary", "-noverify", "-inform", "DER", "-certfile", "cert.pem")
    for number in range(count):
        files = ("-in", f"{number}.cms", "-content", f"{number}.payload", "-out", "/dev/null")
        subprocess.run(
            ["openssl", "cms", *options, *files],
            check=True,
            cwd=folder,
            stderr=subprocess.DEVNULL,
        )


def timed(work: Callable[[], None]) -> float:
    """Return the seconds that the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
