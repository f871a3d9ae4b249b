"""Compare the model with the running kernel on many programs, and say where they differ.

Run it as root, for example::

    python -m tests.isa.campaign random --count 20000 --seed 1
    python -m tests.isa.campaign mutated --count 2000 --seed 1 build/objects/*/*.bpf.o

``random --model-only`` needs no root: it shows that what the verifier accepts does not fault.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bpfseal.bpf.insn import Insn, decode_insns
from bpfseal.errors import BpfsealError
from bpfseal.kernel.protocol import Kernel
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.object import read_object

from .compare import (
    Verdict,
    judge_and_run,
    load,
    metadata_map,
    model_kernel,
    running_kernel,
)
from .programs import CTX_SIZE, mutated, random_program

_MAX_INSNS = 2000
_SHOWN = 3
_WHOLE = 0.95
"""The share of random programs that are run as they were made; the others are changed first."""

_ROOM = bytes(2048)
"""Context behind what programs are made for: changed ones may ask for more."""

_CLOSED = (-1,) * 1024
"""Entries of the fd array behind the map's: a changed index may lead there."""

_SCHEMES = ("unsigned", "inline", "inline-original", "loadtime")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Tally:
    """Counts agreements, and groups disagreements by what both sides say."""

    def __init__(self) -> None:
        self.total = self.accepted = self.agreed = self.same_errno = self.same_reason = 0
        self.kinds: Counter[tuple[int, str, int, str]] = Counter()
        self.other_errnos: Counter[tuple[int, str, int, str]] = Counter()
        self.examples: dict[tuple[int, str, int, str], str] = {}

    def add(self, kernel: Verdict, model: Verdict, example: str) -> None:
        """Count one program."""
        self.total += 1
        if kernel.accepts == model.accepts:
            self.agreed += 1
            self.accepted += kernel.accepts
            self.same_errno += kernel.errno == model.errno
            self.same_reason += kernel.reason == model.reason
            if kernel.errno != model.errno:
                self.other_errnos[kernel.errno, kernel.rule, model.errno, model.rule] += 1
            return
        kind = (kernel.errno, kernel.rule, model.errno, model.rule)
        self.kinds[kind] += 1
        self.examples.setdefault(kind, example)

    def report(self) -> str:
        """Return the counts and the kinds of disagreement."""
        lines = [
            f"{self.agreed} of {self.total} agree ({100 * self.agreed / max(self.total, 1):.2f} %);"
            f" {self.accepted} accepted by both; same errno {self.same_errno},"
            f" same reason {self.same_reason}"
        ]
        for kind, count in self.kinds.most_common():
            lines.append(f"{count} times: kernel {kind[:2]}, model {kind[2:]}")
            lines.append(f"    first: {self.examples[kind]}")
        for kind, count in self.other_errnos.most_common():
            lines.append(f"{count} times refused by kernel with {kind[:2]}, model {kind[2:]}")
        return "\n".join(lines)


def compare_random(kernel: Kernel | None, count: int, seed: int) -> int:
    """Compare verdicts and results of random programs; return how many results differ."""
    chance = random.Random(seed)  # noqa: S311 - not for keys
    tally, wrong, ran = Tally(), 0, 0
    for number in range(count):
        insns = random_program(chance)
        is_whole = chance.random() < _WHOLE
        if not is_whole:  # such a program may read stack that nobody has written
            insns = mutated(chance, insns)
        ctx = chance.randbytes(CTX_SIZE) + _ROOM
        try:
            model, result = judge_and_run(model_kernel(), insns, ctx)
        except BpfsealError as error:
            wrong += 1
            _say(f"seed {seed}, program {number}: accepted, then {error}")
            continue
        ran += result is not None
        if kernel is None:
            tally.add(model, model, "")
            continue
        if is_whole:
            verdict, expected = judge_and_run(kernel, insns, ctx)
        else:  # it is not run: a change may make it close a fd of this process
            verdict, fd = load(kernel, insns)
            expected = result
            if fd >= 0:
                kernel.close(fd)
        tally.add(verdict, model, f"seed {seed}, program {number}")
        if result is not None and expected != result:
            wrong += 1
            if wrong <= _SHOWN:
                _say(f"seed {seed}, program {number}: kernel {expected}, model {result}")
    _say(tally.report())
    _say(f"{ran} ran in the model; {wrong} wrong")
    return wrong


def compare_mutated(kernel: Kernel, count: int, seed: int, paths: Sequence[Path]) -> Tally:
    """Compare verdicts on loaders with small changes."""
    chance = random.Random(seed)  # noqa: S311 - not for keys
    loaders = _loaders(chance, paths)
    maps: dict[int, int] = {}
    tally = Tally()
    for number in range(count):
        name, loader, insns = chance.choice(loaders)
        changed = mutated(chance, insns)
        size = len(loader.metadata)
        if size not in maps:
            maps[size] = metadata_map(kernel, size)
        verdict, fd = load(kernel, changed, (maps[size], *_CLOSED))
        if fd >= 0:
            kernel.close(fd)
        model = model_kernel()
        judged, _ = load(model, changed, (metadata_map(model, size), *_CLOSED))
        tally.add(verdict, judged, f"seed {seed}, mutant {number} of {name}: {verdict} {judged}")
    for fd in maps.values():
        kernel.close(fd)
    return tally


def _loaders(chance: random.Random, paths: Sequence[Path]) -> list[tuple[str, Loader, list[Insn]]]:
    """Return the loaders of up to 24 objects, in the schemes that the machine's kernel takes."""
    loaders = []
    for path in chance.sample(list(paths), min(len(paths), 24)):
        source = read_object(path.read_bytes(), path.name)
        for scheme in _SCHEMES:
            loader = generate(source, scheme)
            insns = decode_insns(loader.insns, loader.byteorder)
            if loader.byteorder == "little" and len(insns) <= _MAX_INSNS:
                loaders.append((f"{path.name} ({scheme})", loader, insns))
    return loaders


def main(arguments: Sequence[str]) -> int:
    """Run a campaign and return 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("random", "mutated"))
    parser.add_argument("objects", nargs="*", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-only", action="store_true")
    given = parser.parse_intermixed_args(arguments)
    kernel = None if given.model_only else running_kernel()
    if kernel is None and not (given.model_only and given.what == "random"):
        sys.stderr.write("needs root and a kernel with SYSCALL programs\n")
        return 4
    started = time.perf_counter()
    if given.what == "random":
        failed = compare_random(kernel, given.count, given.seed) > 0
    else:
        assert kernel is not None
        _say(compare_mutated(kernel, given.count, given.seed, given.objects).report())
        failed = False
    _say(f"{time.perf_counter() - started:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
