"""What a verified loader needs beside a signature that verifies; the rest is in tests/cli."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.sign import sign_bundle, sign_loader
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import UsageError, VerificationError
from bpfseal.signing import cms, keygen
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.signer import KeySigner, load_signer

from .support import LOADER

UNSIGNED = replace(LOADER, scheme_name="unsigned", btf=b"")


@pytest.fixture(scope="module")
def signer() -> KeySigner:
    pair = keygen.generate("p256", "loader signing")
    return load_signer(pair.private_key_pem, pair.certificate_pem)


def refused(signed: SignedLoader, trusted: Certificate, match: str) -> None:
    with pytest.raises(VerificationError, match=match):
        verify_loader(signed, [trusted])


def test_a_signature_that_verifies_is_not_enough(signer: KeySigner) -> None:
    signed = sign_loader(SignedLoader(LOADER), signer)
    refused(signed, signer.certificate, "carry no digest of the metadata")


def test_a_scheme_without_a_signature_never_verifies(signer: KeySigner) -> None:
    # Its payload is empty, and anyone may have a signature over nothing.
    over_nothing = Signature(cms.build(b"", signer), signer.certificate.der)
    signed = SignedLoader(UNSIGNED, (over_nothing,))
    refused(signed, signer.certificate, "a signature covers nothing")


def test_a_scheme_without_a_signature_is_not_signed(signer: KeySigner) -> None:
    with pytest.raises(UsageError, match="has no signature"):
        sign_loader(SignedLoader(UNSIGNED), signer)


def test_a_loader_under_the_name_of_another_scheme_does_not_verify(signer: KeySigner) -> None:
    # The scheme is in the config, which no signature covers.
    signed = sign_loader(SignedLoader(LOADER), signer)
    for scheme_name in ("inline", "inline-original", "loadtime"):
        renamed = replace(LOADER, scheme_name=scheme_name, btf=b"")
        other = replace(signed, loader=renamed)
        refused(other, signer.certificate, "EKEYREJECTED")


def test_a_loadtime_loader_that_is_signed_without_its_metadata_does_not_verify(
    signer: KeySigner,
) -> None:
    # Kernels of the inline schemes would load it and check the metadata nowhere.
    for scheme_name in ("inline", "inline-original"):
        renamed = replace(LOADER, scheme_name=scheme_name, btf=b"")
        signed = sign_loader(SignedLoader(renamed), signer)
        refused(signed, signer.certificate, "carry no digest of the metadata")


def test_only_the_schemes_asked_for_are_signed(signer: KeySigner) -> None:
    bundle = Bundle("x", (SignedLoader(LOADER), SignedLoader(UNSIGNED)))
    signed = sign_bundle(bundle, signer, schemes=["kfunc"])
    assert [len(variant.signatures) for variant in signed.variants] == [1, 0]
