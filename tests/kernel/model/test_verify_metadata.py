"""`bpf_loader_verify_metadata`: each check of the seed patch, and their order.

Source: the seed patch, kernel/bpf/helpers.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EACCES, EBADMSG, EINVAL, EPERM
from itertools import combinations

import pytest

from bpfseal.bpf.uapi import MapType, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model.kernel_btf import SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.kfuncs import verify_metadata
from bpfseal.kernel.model.lsm import Hook, Operation, ProgramFacts
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

from ..support import METADATA, sha256

DIGEST = sha256(b"the calling program")


@dataclass
class Situation:
    """All that the kfunc looks at; everything is right until a test breaks it."""

    verdict: Verdict = Verdict.OK
    exclusive_to: bytes | None = DIGEST
    expected: bytes = sha256(METADATA)
    is_frozen: bool = True
    map_type: MapType = MapType.ARRAY
    hooks: list[Hook] = field(default_factory=list)

    def verify(self) -> ModelProgram:
        """Call the kfunc and return the calling program."""
        state = KernelState(KFUNC_SERIES, SyntheticBtf(), SyntheticSymbols(), self.hooks)
        program = ModelProgram(
            ProgAttributes(ProgType.SYSCALL, "loader", b"", "GPL"),
            DIGEST,
            (),
            verdict=self.verdict,
            keyring=KeyringKind.USER,
        )
        subject = ModelMap(
            MapAttributes(self.map_type, 4, len(METADATA), 1, excl_prog_hash=self.exclusive_to),
            state.memory,
        )
        subject.update(bytes(4), METADATA, 0)
        if self.is_frozen:
            subject.freeze()
        self.program = program
        verify_metadata(state, program, subject, self.expected)
        return program


def deny(_operation: Operation, _program: ProgramFacts) -> int:
    return -EACCES


@dataclass(frozen=True)
class Check:
    """One check of the kfunc: how to fail it, and what it answers."""

    name: str
    fail: Callable[[Situation], None]
    errno: int
    says: str


def _set(**changes: object) -> Callable[[Situation], None]:
    def fail(situation: Situation) -> None:
        for name, value in changes.items():
            setattr(situation, name, value)

    return fail


CHECKS = (
    Check("verdict", _set(verdict=Verdict.UNSIGNED), EPERM, "verdict is UNSIGNED"),
    Check("hash size", lambda s: _set(expected=s.expected[:16])(s), EINVAL, "hash__sz 32"),
    Check("digest", _set(exclusive_to=sha256(b"another")), EPERM, "exclusive to another"),
    Check("frozen", _set(is_frozen=False), EPERM, "must be frozen"),
    Check("hash operation", _set(map_type=MapType.HASH), EINVAL, "HASH maps have no hash"),
    Check(
        "hash",
        lambda s: _set(expected=bytes([s.expected[0] ^ 1]) + s.expected[1:])(s),
        EBADMSG,
        "differs",
    ),
    Check("post-integrity hook", _set(hooks=[deny]), EACCES, "a hook refused"),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_answers_with_its_errno_and_leaves_the_verdict(check: Check) -> None:
    situation = Situation()
    check.fail(situation)
    before = situation.verdict
    with pytest.raises(KernelError) as refused:
        situation.verify()
    assert refused.value.errno == check.errno
    assert check.says in refused.value.rule
    assert situation.program.verdict is before


@pytest.mark.parametrize(
    ("earlier", "later"),
    list(combinations(CHECKS, 2)),
    ids=lambda check: check.name,
)
def test_of_two_failing_checks_the_earlier_answers(earlier: Check, later: Check) -> None:
    situation = Situation()
    for check in (earlier, later):
        check.fail(situation)
    with pytest.raises(KernelError) as refused:
        situation.verify()
    assert (refused.value.errno, earlier.says in refused.value.rule) == (earlier.errno, True)


def test_a_map_that_is_not_exclusive_is_einval_even_if_it_is_not_frozen() -> None:
    with pytest.raises(KernelError) as refused:
        Situation(exclusive_to=None, is_frozen=False).verify()
    assert refused.value.errno == EINVAL


def test_a_match_promotes_the_verdict() -> None:
    assert Situation().verify().verdict is Verdict.METADATA_VERIFIED


def test_a_program_that_was_promoted_is_refused_the_second_time() -> None:
    with pytest.raises(KernelError) as refused:
        Situation(verdict=Verdict.METADATA_VERIFIED).verify()
    assert refused.value.errno == EPERM


def test_the_rule_names_the_kernel_function() -> None:
    with pytest.raises(KernelError) as refused:
        Situation(is_frozen=False).verify()
    source, _, rule = refused.value.rule.partition(": ")
    assert (source, rule) == (
        "kernel/bpf/helpers.c bpf_loader_verify_metadata",
        "the map must be frozen",
    )


def test_the_post_integrity_hook_sees_the_verdict_about_to_be_given() -> None:
    seen: list[tuple[Operation, ProgramFacts]] = []

    def watch(operation: Operation, program: ProgramFacts) -> int:
        seen.append((operation, program))
        return 0

    program = Situation(hooks=[watch]).verify()
    [(operation, facts)] = seen
    assert operation is Operation.BPF_PROG_LOAD_POST_INTEGRITY
    assert facts == program.facts_for(Verdict.METADATA_VERIFIED)


def test_a_denying_hook_leaves_the_verdict_at_ok_so_that_it_is_asked_again() -> None:
    situation = Situation(hooks=[deny])
    for _ in range(2):
        with pytest.raises(KernelError) as refused:
            situation.verify()
        assert refused.value.errno == EACCES
    assert situation.program.verdict is Verdict.OK
