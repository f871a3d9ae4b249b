"""Fuzzing guided by coverage, with atheris (``pip install bpfseal[fuzz]``).

Each target gets a process of its own and a share of the time. The library is instrumented, which
makes it slower: what is found there is judged again without that before it counts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_BACKSTOP: Final = 60
"""Seconds after which libFuzzer ends a call that not even a signal interrupts."""

_MEMORY: Final = 4096
"""MiB of a process at which libFuzzer ends it."""

_MAX_SIZE: Final = 1 << 16
"""Bytes of the largest input."""

_OWN: Final = 3
"""One of so many mutations is ours, the others are libFuzzer's."""

_ROOT: Final = Path(__file__).resolve().parents[2]


def run_all(
    names: Sequence[str] | None,
    minutes: float,
    corpus: Path,
    findings: Path,
    say: Callable[[str], None],
) -> int:
    """Run each target for its share of the time; return 1 if one of them found something."""
    if importlib.util.find_spec("atheris") is None:
        say("guided fuzzing needs atheris: pip install 'bpfseal[fuzz]'")
        return 2
    from .limits import judge
    from .targets import TARGETS

    warnings.simplefilter("error")
    chosen = list(names or TARGETS)
    seconds = max(int(60 * minutes / len(chosen)), 5)
    found = 0
    for name in chosen:
        folder = corpus / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in TARGETS[name].seeds():
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        before = _saved(findings, name)
        arguments = ("guided-child", name, str(seconds), str(folder), "--findings", str(findings))
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *arguments],
            cwd=_ROOT,
            capture_output=True,
            check=False,
            text=True,
            errors="replace",
        )
        say(f"{name:22}{_summary(done.stderr)}")
        for path in sorted(_saved(findings, name) - before):
            outcome = judge(TARGETS[name].call, path.read_bytes())
            if outcome.kind.is_finding or "crash" in path.name:
                found += 1
                say(f"    {path.name}: {outcome.kind} at {outcome.place}: {outcome.error[:200]}")
            else:
                path.unlink()  # only the instrumented library was too slow or too large
        if done.returncode:
            say(f"    ended with {done.returncode}: {done.stderr[-600:]}")
            found += 1
    return int(found > 0)


def _saved(findings: Path, name: str) -> set[Path]:
    return {path for path in findings.glob(f"{name}.*") if path.suffix != ".txt"}


def _summary(log: str) -> str:
    """Return the last line with which libFuzzer told of its progress."""
    lines = [line for line in log.splitlines() if re.match(r"#\d", line)]
    done = [line for line in log.splitlines() if line.startswith("Done")]
    return " ".join([*(lines[-1:] or ["nothing was run"]), *done])


def run_one(name: str, seconds: int, corpus: Path, findings: Path) -> int:
    """Fuzz one target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["bpfseal"]):
        from .targets import TARGETS

        target = TARGETS[name]
        seeds = target.seeds()
        for data in seeds:
            _quietly(target.call, data)  # what is imported late is instrumented, too
    from .limits import judge, save
    from .mutators import mutate

    warnings.simplefilter("error")
    known: set[tuple[str, str, str]] = set()

    def one(data: bytes) -> None:
        outcome = judge(target.call, data)
        if outcome.kind.is_finding and outcome.group not in known:
            known.add(outcome.group)
            save(findings, name, data, outcome)

    def change(data: bytes, limit: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - damage, no secrets
        if chance.randrange(_OWN):
            return bytes(atheris.Mutate(data, limit))
        return mutate(
            [data, chance.choice(seeds)][: 1 + chance.randrange(2)], target.mutators, chance
        )[:limit]

    findings.mkdir(parents=True, exist_ok=True)
    options = (
        f"-max_total_time={seconds}",
        f"-timeout={_BACKSTOP}",
        f"-rss_limit_mb={_MEMORY}",
        f"-max_len={max(_MAX_SIZE, *map(len, seeds))}",
        f"-artifact_prefix={findings}/{name}.crash.",
        "-print_final_stats=0",
    )
    atheris.Setup([name, *options, str(corpus)], one, custom_mutator=change)
    atheris.Fuzz()
    return 0


def _quietly(call: Callable[[bytes], object], data: bytes) -> None:
    from bpfseal.errors import BpfsealError

    try:
        call(data)
    except (BpfsealError, Exception):  # noqa: BLE001 - it is judged later
        return
