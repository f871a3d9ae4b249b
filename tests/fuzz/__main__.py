"""Run the fuzzers, for example::

python -m tests.fuzz mutate --count 300000 --seed 1
python -m tests.fuzz guided --minutes 30
python -m tests.fuzz replay build/fuzz/findings/cms.foreign.0123456789ab
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
BUILD = ROOT / "build" / "fuzz"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _mutate(args: argparse.Namespace) -> int:
    from .campaign import HEADER, Tally, run, shares
    from .targets import TARGETS

    _say(HEADER)
    total = Tally("all")
    chosen = [TARGETS[name] for name in args.target or TARGETS]
    for target, count in shares(args.count, chosen):
        tally = run(target, count, args.seed, args.findings)
        _say(tally.line())
        for _, outcome in tally.findings.values():
            _say(f"    {outcome.kind} at {outcome.place}: {outcome.error[:200]}")
        total.merge(tally)
    _say(total.line())
    return int(bool(total.findings))


def _guided(args: argparse.Namespace) -> int:
    from .guided import run_all

    return run_all(args.target, args.minutes, BUILD / "corpus", args.findings, _say)


def _guided_child(args: argparse.Namespace) -> int:
    from .guided import run_one

    return run_one(args.name, args.seconds, args.corpus, args.findings)


def _replay(args: argparse.Namespace) -> int:
    from .limits import judge
    from .targets import TARGETS

    warnings.simplefilter("error")
    found = 0
    for path in args.file:
        name = args.target[0] if args.target else path.name.split(".")[0]
        outcome = judge(TARGETS[name].call, path.read_bytes())
        found += outcome.kind.is_finding
        _say(f"{path.name}: {outcome.kind} {outcome.error} {outcome.place}")
        _say(f"    {outcome.cpu:.2f} s, {outcome.memory >> 20} MiB\n{outcome.trace}")
    return int(found > 0)


def main() -> int:
    """Run one of the fuzzers; 1 is returned if it found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    verbs = parser.add_subparsers(required=True)
    mutate = verbs.add_parser("mutate", help="damaged inputs from a seed")
    mutate.add_argument("--count", type=int, default=300_000)
    mutate.add_argument("--seed", type=int, default=1)
    mutate.set_defaults(run=_mutate)
    guided = verbs.add_parser("guided", help="guided by coverage (needs atheris)")
    guided.add_argument("--minutes", type=float, default=30)
    guided.set_defaults(run=_guided)
    replay = verbs.add_parser("replay", help="judge saved inputs again")
    replay.add_argument("file", type=Path, nargs="+")
    replay.set_defaults(run=_replay)
    child = verbs.add_parser("guided-child")
    child.add_argument("name")
    child.add_argument("seconds", type=int)
    child.add_argument("corpus", type=Path)
    child.set_defaults(run=_guided_child)
    for each in (mutate, guided, replay):
        each.add_argument("--target", action="append", help="only this one; may be repeated")
    for each in (mutate, guided, child):
        each.add_argument("--findings", type=Path, default=BUILD / "findings")
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
