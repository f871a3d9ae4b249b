"""Programs that five real kernels were asked for: the model of each release answers as it did.

What still differs is in `DIFFERENT`, each with its cause: one that is not needed any more fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pytest

from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.profile import PROFILES

from .measured import Answer, Machine, Program, ask, read_data

PROFILE_OF: Final = {
    "6.12.117": "6.12",
    "6.18.44": "6.18-unverified",
    "7.0.13": "7.0",
    "7.2.12": "7.2",
    "7.3.4": "7.3",
}
"""The profile of each kernel that was measured."""

_NO_HELPER: Final = "the model does not have the helper"
_ADDRESS: Final = "the program returns an address"
_FOLDED: Final = "from 7.2 on a jump whose operand is constant on all paths is decided beforehand"

DIFFERENT: Final[Mapping[str, str]] = {
    "t2 END ptr": _ADDRESS,
    "t5 dynptr": _NO_HELPER,
    "t5 task_btf deref": "the model does not follow pointers into the kernel",
    "t3 helper btf_find task_struct? not found": "a synthetic BTF has every name",
    "t1 infinite 2 jumps (7.2 on)": _FOLDED,
}
"""Names of programs that are answered otherwise, and why."""

LONG: Final = frozenset(
    {
        "t5 loop 600000 L0 (too complex)",
        "t5 loop 100000 L0",
        "t5 may_goto 100000 L0",
        "t1 loop 10000",
    }
)
"""Programs whose verification looks at hundreds of thousands of insns: one kernel is enough."""

_AS_LONG_AS_KERNELS: Final = 1 << 24

MAPS, MEASURED = read_data()


def answer_of(program: Program, profile: str) -> Answer:
    kernel = ModelKernel(
        profile=PROFILES[profile], kernel_btf=SyntheticBtf(), patience=_AS_LONG_AS_KERNELS
    )
    machine = Machine(kernel, kernel.allocate, kernel.read_memory, kernel.sys_bpf)
    return ask(machine, MAPS, program)


def is_known(name: str, kernel: str) -> bool:
    return name in DIFFERENT or (f"{name} (7.2 on)" in DIFFERENT and kernel in ("7.2.12", "7.3.4"))


@pytest.mark.parametrize("kernel", PROFILE_OF)
def test_the_model_answers_as_the_kernel(kernel: str) -> None:
    wrong = {
        program.name: (answer, answers[kernel])
        for program, answers in MEASURED.items()
        if program.name not in LONG
        and (answer := answer_of(program, PROFILE_OF[kernel])) != answers[kernel]
    }
    expected = {
        program.name
        for program in MEASURED
        if program.name not in LONG and is_known(program.name, kernel)
    }
    assert wrong.keys() == expected, {n: wrong[n] for n in wrong.keys() - expected}


@pytest.mark.parametrize("kernel", PROFILE_OF)
def test_no_program_is_accepted_that_the_kernel_refuses(kernel: str) -> None:
    accepted = [
        program.name
        for program, answers in MEASURED.items()
        if program.name not in LONG
        and answers[kernel].load != "ok"
        and answer_of(program, PROFILE_OF[kernel]).load == "ok"
    ]
    assert not accepted


@pytest.mark.parametrize("name", sorted(LONG))
def test_long_loops_are_followed_to_their_end_or_to_the_limit(name: str) -> None:
    (program,) = (program for program in MEASURED if program.name == name)
    assert answer_of(program, "6.18-unverified") == MEASURED[program]["6.18.44"]
