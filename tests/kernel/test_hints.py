"""What the refusals of a load mean, and what to do about them."""

from __future__ import annotations

import errno

import pytest

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError
from bpfseal.kernel.hints import advise
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.signing.signer import load_signer
from support.files import EXAMPLE

from .support import key_pair, trusting_kernel


def artifact(scheme: str, *, signed: bool = True) -> SignedLoader:
    loader = SignedLoader(generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), scheme))
    pair = key_pair()
    signer = load_signer(pair.private_key_pem, pair.certificate_pem)
    return sign_loader(loader, signer) if signed else loader


@pytest.mark.parametrize(
    ("scheme", "profile", "hint"),
    [
        ("loadtime", "7.2", "another scheme: --scheme inline"),
        ("inline", "7.3", "another scheme: --scheme loadtime"),
        ("kfunc", "7.3", "another scheme: --scheme loadtime"),
        ("inline", "6.17", "no exclusive maps"),
    ],
)
def test_a_kernel_that_wants_something_else_is_told_apart(
    scheme: str, profile: str, hint: str
) -> None:
    with pytest.raises(KernelError) as refused:
        load(trusting_kernel(profile=PROFILES[profile]), artifact(scheme))
    assert hint in refused.value.hint


def test_a_kernel_without_signature_verification_says_so() -> None:
    with pytest.raises(KernelError, match=r"EOPNOTSUPP.*this kernel cannot verify signatures"):
        load(ModelKernel(profile=PROFILES["6.18-unverified"]), artifact("inline"))


def test_a_signer_that_nobody_trusts_is_said_before_the_scheme_is_blamed() -> None:
    with pytest.raises(KernelError, match=r"ENOKEY.*holds no key that made this signature"):
        load(ModelKernel(), artifact("kfunc"))


def test_a_loader_that_should_be_signed_and_is_not_says_so() -> None:
    with pytest.raises(KernelError, match="not signed: bpfseal sign, or --scheme unsigned"):
        load(ModelKernel(), artifact("kfunc", signed=False), unsigned=True)


@pytest.mark.parametrize(
    ("step", "number", "is_environment"),
    [
        ("prog_load", errno.EOPNOTSUPP, True),
        ("map_create", errno.EPERM, True),
        ("map_create", errno.EINVAL, True),
        ("prog_load", errno.EKEYREJECTED, False),
        ("prog_run", errno.EBADMSG, False),
        ("prog_run", errno.EXFULL, False),
    ],
)
def test_what_the_kernel_lacks_is_not_the_artifacts_fault(
    step: str, number: int, *, is_environment: bool
) -> None:
    refused = KernelError(number, step=step)
    assert advise(refused, artifact("inline"), "inline").is_environment is is_environment


def test_a_map_that_an_unsigned_loader_cannot_make_has_another_reason() -> None:
    refused = KernelError(errno.EINVAL, step="map_create")
    assert advise(refused, artifact("unsigned", signed=False), None).hint == ""
