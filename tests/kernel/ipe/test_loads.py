"""IPE in the kernel model: what becomes of real loads under a policy.

Source: what was measured on a kernel with the series.
"""

from __future__ import annotations

from dataclasses import replace
from errno import EACCES, EKEYREJECTED, EPERM
from functools import cache

import pytest

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.bundle.sign import payload_of
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.ipe import Ipe, parse_policy
from bpfseal.kernel.model.ipe.forecast import expected_questions
from bpfseal.kernel.model.ipe.policy import ALLOW_INNER_LOADS
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.verdict import KeyringKind, Verdict
from bpfseal.loader import generate
from bpfseal.object import read_object
from support.files import EXAMPLE

from ..support import CTX_SIZE, Steps, key_pair, sign, trusting_kernel
from .policies import HEADER, SELFTEST

DENY_UNSIGNED = "op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY"
DENY_POST = "op=BPF_PROG_LOAD_POST_INTEGRITY action=DENY"
ALLOW = "DEFAULT action=ALLOW"


def ipe_with(*lines: str, enforce: bool = True) -> Ipe:
    text = HEADER + "\n".join(lines).encode()
    return Ipe.booted(parse_policy(text), enforce=enforce, success_audit=True)


@cache
def example(scheme: str = "kfunc", *, signed: bool = True) -> SignedLoader:
    """The example object with two programs, as a loader of a scheme."""
    loader = generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), scheme)
    certificate = key_pair().certificate_der
    signatures = (Signature(sign(payload_of(loader)), certificate),) if signed else ()
    return SignedLoader(loader, signatures)


def refusal_of(ipe: Ipe, loader: SignedLoader) -> tuple[str, int]:
    """Return step and errno of a load that is refused."""
    with pytest.raises(KernelError) as refused:
        load(trusting_kernel(ipe), loader, unsigned=not loader.signatures)
    return refused.value.step, refused.value.errno


def rules(ipe: Ipe) -> list[str]:
    return [str(record).partition(" rule=")[2].strip('"') for record in ipe.records]


def test_a_signed_loader_is_asked_about_then_its_metadata_then_each_of_its_programs() -> None:
    ipe = ipe_with(ALLOW)
    kernel = trusting_kernel(ipe)
    load(kernel, example())
    assert [
        (each.program, each.event.operation.value, str(each.event)) for each in ipe.questions
    ] == [
        (
            "__loader.prog",
            "BPF_PROG_LOAD",
            "bpf_signature=OK bpf_keyring=USER bpf_kernel=FALSE",
        ),
        (
            "__loader.prog",
            "BPF_PROG_LOAD_POST_INTEGRITY",
            "bpf_signature=METADATA_VERIFIED bpf_keyring=USER bpf_kernel=FALSE",
        ),
        ("on_exec", "BPF_PROG_LOAD", "bpf_signature=UNSIGNED bpf_kernel=TRUE"),
        ("on_exit", "BPF_PROG_LOAD", "bpf_signature=UNSIGNED bpf_kernel=TRUE"),
    ]
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED


def test_to_deny_unsigned_makes_the_verified_loader_run_and_return_eacces() -> None:
    ipe = ipe_with(DENY_UNSIGNED, ALLOW)
    kernel = trusting_kernel(ipe)
    with pytest.raises(KernelError) as refused:
        load(kernel, example())
    assert (refused.value.step, refused.value.errno) == ("prog_run", EACCES)
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    assert rules(ipe) == [ALLOW, ALLOW, DENY_UNSIGNED]


def test_the_policy_of_the_series_own_test_denies_its_loaders_when_it_is_enforced() -> None:
    assert refusal_of(Ipe.booted(parse_policy(SELFTEST)), example()) == ("prog_run", EACCES)
    permissive = Ipe.booted(parse_policy(SELFTEST), enforce=False)
    load(trusting_kernel(permissive), example())


def test_with_an_exception_for_the_kernel_signed_loaders_pass_and_unsigned_do_not() -> None:
    lines = ALLOW_INNER_LOADS, DENY_UNSIGNED, ALLOW
    load(trusting_kernel(ipe_with(*lines)), example())
    unsigned = example("unsigned", signed=False)
    assert refusal_of(ipe_with(*lines), unsigned) == ("prog_load", EACCES)


def test_to_gate_the_post_integrity_operation_only_lets_unsigned_loads_through() -> None:
    assert refusal_of(ipe_with(DENY_POST, ALLOW), example()) == ("prog_run", EACCES)
    kernel = trusting_kernel(ipe_with(DENY_POST, ALLOW))
    load(kernel, example("unsigned", signed=False), unsigned=True)


def test_a_denial_at_post_integrity_leaves_the_verdict_ok_and_a_second_run_is_denied_again() -> (
    None
):
    ipe = ipe_with(DENY_POST, ALLOW)
    kernel = trusting_kernel(ipe)
    prog_fd = Steps().load(kernel)
    for _ in range(2):
        assert kernel.prog_run(prog_fd, bytes(CTX_SIZE)).retval == -EACCES
        assert kernel.program(prog_fd).verdict is Verdict.OK
    assert rules(ipe)[1:] == [DENY_POST, DENY_POST]


def test_once_verified_a_second_run_is_eperm_and_the_policy_is_not_asked() -> None:
    ipe = ipe_with(ALLOW)
    kernel = trusting_kernel(ipe)
    prog_fd = Steps().load(kernel)
    assert kernel.prog_run(prog_fd, bytes(CTX_SIZE)).retval == 0
    asked = len(ipe.questions)
    assert kernel.prog_run(prog_fd, bytes(CTX_SIZE)).retval == -EPERM
    assert len(ipe.questions) == asked


def test_a_policy_that_changes_its_mind_lets_the_second_run_verify() -> None:
    ipe = ipe_with(DENY_POST, ALLOW)
    kernel = trusting_kernel(ipe)
    prog_fd = Steps().load(kernel)
    assert kernel.prog_run(prog_fd, bytes(CTX_SIZE)).retval == -EACCES
    ipe.update_policy("p", b"policy_name=p policy_version=1.2.4\nDEFAULT action=ALLOW")
    assert kernel.prog_run(prog_fd, bytes(CTX_SIZE)).retval == 0
    assert kernel.program(prog_fd).verdict is Verdict.METADATA_VERIFIED


@pytest.mark.parametrize("line", [DENY_UNSIGNED, DENY_POST, "op=BPF_PROG_LOAD action=DENY"])
def test_permissive_mode_lets_everything_through_and_logs_it(line: str) -> None:
    ipe = ipe_with(line, ALLOW, enforce=False)
    kernel = trusting_kernel(ipe)
    load(kernel, example())
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    assert line in rules(ipe)
    assert all("enforcing=0" in str(record) for record in ipe.records)


@pytest.mark.parametrize(
    ("keyring_id", "name"),
    [
        (KeyringId.BUILTIN, "BUILTIN"),
        (KeyringId.SECONDARY, "SECONDARY"),
        (KeyringId.PLATFORM, "PLATFORM"),
        (KeyringId.SESSION, "USER"),
    ],
)
def test_a_policy_can_insist_on_a_keyring(keyring_id: int, name: str) -> None:
    lines = ALLOW_INNER_LOADS, f"op=BPF_PROG_LOAD bpf_keyring={name} action=ALLOW"
    rest = "DEFAULT op=BPF_PROG_LOAD action=DENY", ALLOW
    for trusted in (KeyringId.BUILTIN, KeyringId.SECONDARY, KeyringId.PLATFORM, KeyringId.SESSION):
        kernel = ModelKernel(hooks=[ipe_with(*lines, *rest)])
        kernel.keyrings.add_key(trusted, key_pair().certificate_der)
        if trusted == keyring_id:
            load(kernel, example(), keyring_id=trusted)
        else:
            with pytest.raises(KernelError) as refused:
                load(kernel, example(), keyring_id=trusted)
            assert refused.value.errno == EACCES


def test_a_signature_that_does_not_verify_is_refused_before_the_policy_is_asked() -> None:
    good = example()
    foreign = replace(good.signatures[0], cms=sign(b"something else"))
    ipe = ipe_with("DEFAULT action=DENY")
    assert refusal_of(ipe, SignedLoader(good.loader, (foreign,))) == ("prog_load", EKEYREJECTED)
    assert ipe.questions == []


# The forecast


class _Watch:
    """A hook that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Operation, ProgramFacts]] = []

    def __call__(self, operation: Operation, program: ProgramFacts) -> int:
        self.asked.append((operation, program))
        return 0


@pytest.mark.parametrize(
    ("scheme", "signed"),
    [("kfunc", True), ("kfunc", False), ("inline", True), ("unsigned", False)],
)
def test_the_forecast_of_a_load_is_what_the_load_asks(scheme: str, signed: bool) -> None:
    watch = _Watch()
    loader = example(scheme, signed=signed)
    if (scheme, signed) == ("kfunc", False):
        with pytest.raises(KernelError) as refused:
            load(trusting_kernel(watch), loader, unsigned=True)
        assert (refused.value.step, refused.value.errno) == ("prog_run", EPERM)
    else:
        load(trusting_kernel(watch), loader, unsigned=not signed)
    assert watch.asked == list(expected_questions(loader, KeyringKind.USER))


def test_there_is_no_forecast_for_a_signature_that_kernels_of_the_series_refuse() -> None:
    loader = example("loadtime")
    assert refusal_of(ipe_with(ALLOW), loader) == ("prog_load", EKEYREJECTED)
    with pytest.raises(UsageError, match="loadtime"):
        list(expected_questions(loader, KeyringKind.USER))
