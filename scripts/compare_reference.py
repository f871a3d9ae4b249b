"""Build real objects with bpfseal and with the reference tool, and compare every byte.

Compared are instructions, metadata, exclusive hash and the RSA signature in scheme ``loadtime``.
Objects with 32 and more functions are the one known difference: the reference's loaders for them
are refused by every kernel.

Usage: compare_reference.py WORK_DIRECTORY
"""

from __future__ import annotations

import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from debian import FetchError
from fetch_objects import fetch_objects
from reference import Reference

from bpfseal.bundle.lskel import parse_header
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import BpfsealError
from bpfseal.kernel.linux.host_values import host_values
from bpfseal.loader import generate
from bpfseal.loader.frame import MAX_STACK_PROGRAMS
from bpfseal.object import read_object
from bpfseal.object.reader import read_externs
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer

PACKAGES = (
    ("bookworm", "libbpf-tools"),
    ("trixie", "libbpf-tools"),
    ("bookworm", "libxdp1"),
    ("bookworm", "xdp-tools"),
)
COMPILERS = {
    "clang-14": ["-target", "bpf", "-O2", "-g"],
    "clang-19": ["-target", "bpf", "-O2", "-g"],
    "bpf-gcc": ["-O2", "-gbtf", "-mco-re", "-I/usr/include"],
}


@dataclass(frozen=True)
class Comparison:
    """One object: what became of it, and how long each side took in seconds."""

    name: str
    outcome: str
    ours: float = 0.0
    reference: float = 0.0


def compare(path: Path, reference: Reference, keys: Path, signer: Signer) -> Comparison:
    """Build one object both ways."""
    name = f"{path.parent.name}/{path.name}"
    started = time.perf_counter()
    arguments = ("-L", "-S", "-k", str(keys / "key.pem"), "-i", str(keys / "cert.pem"))
    theirs = reference.run(*arguments, "gen", "skeleton", str(path))
    reference_time = time.perf_counter() - started
    try:
        data = path.read_bytes()
        externs = read_externs(data, path.name)
        target = host_values([e.name for e in externs if e.is_typeless])
        started = time.perf_counter()
        obj = read_object(data, path.name, target)
        loader = generate(obj, "loadtime")
        our_time = time.perf_counter() - started
    except BpfsealError as error:
        outcome = "both refuse" if theirs.returncode else f"WE REFUSE: {error}"
        return Comparison(name, outcome)
    if theirs.returncode:
        return Comparison(name, "only the reference refuses")
    arrays = parse_header(theirs.stdout.encode(), name).arrays
    ours = {
        "opts_insn": loader.insns,
        "opts_data": loader.metadata,
        "opts_excl_hash": loader.excl_prog_hash,
        "opts_sig": sign_loader(SignedLoader(loader), signer).signatures[0].cms,
    }
    different = [part for part, value in ours.items() if arrays.get(part) != value]
    if not different:
        return Comparison(name, "identical", our_time, reference_time)
    if len(obj.functions) >= MAX_STACK_PROGRAMS:
        return Comparison(name, f"{len(obj.functions)} functions, theirs does not load")
    return Comparison(name, f"DIFFERENT: {', '.join(different)}")


def compile_examples(directory: Path) -> None:
    """Compile the project's examples with every compiler that is installed."""
    for compiler, flags in COMPILERS.items():
        if shutil.which(compiler) is None:
            print(f"skipped: {compiler} is not installed")
            continue
        target = directory / f"examples-{compiler}"
        target.mkdir(parents=True, exist_ok=True)
        include = f"-I/usr/include/{platform.machine()}-linux-gnu"
        for source in sorted(Path("examples").glob("*.bpf.c")):
            output = target / f"{source.stem}.o"
            command = [compiler, *flags, include, "-c", str(source), "-o", str(output)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                line = next(iter(done.stderr.splitlines()), "no reason given")
                print(f"skipped: {compiler} does not compile {source.name}: {line}")


def main(directory: Path) -> int:
    """Fetch, build, compare; return 0 if nothing is different."""
    objects = directory / "objects"
    try:
        reference = Reference(directory)
        for suite, package in PACKAGES:
            fetch_objects(suite, package, objects)
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    compile_examples(objects)
    keys = directory / "keys"
    keys.mkdir(exist_ok=True)
    pair = generate_key("rsa2048", "comparison")
    (keys / "key.pem").write_bytes(pair.private_key_pem)
    (keys / "cert.pem").write_bytes(pair.certificate_pem)
    signer = load_signer(pair.private_key_pem, pair.certificate_pem)
    folders = [f"{suite}-{package}" for suite, package in PACKAGES]
    folders += [f"examples-{compiler}" for compiler in COMPILERS]
    paths = [path for folder in folders for path in sorted((objects / folder).glob("*.bpf.o"))]
    results = [compare(path, reference, keys, signer) for path in paths]
    counts: dict[str, int] = {}
    for result in results:
        if result.outcome != "identical":
            print(f"{result.name}: {result.outcome}")
        kind = re.split(r"[:,]", result.outcome)[0]
        kind = "too many functions for the reference" if kind[0].isdigit() else kind
        counts[kind] = counts.get(kind, 0) + 1
    print(f"\n{reference.run('version').stdout.splitlines()[0]}, scheme loadtime")
    for kind, count in sorted(counts.items()):
        print(f"{count:5} {kind}")
    same = [result for result in results if result.outcome == "identical"]
    ours = 1000 * statistics.median(result.ours for result in same)
    theirs = 1000 * statistics.median(result.reference for result in same)
    print(
        f"median: {ours:.1f} ms to read and generate, {theirs:.1f} ms for the reference's process"
    )
    return 1 if any(kind in ("DIFFERENT", "WE REFUSE") for kind in counts) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
