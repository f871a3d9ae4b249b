"""Keys on a token, with SoftHSM."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bpfseal.errors import (
    BpfsealError,
    CapabilityError,
    InputError,
    UnsupportedError,
    UsageError,
)
from bpfseal.signing import cms
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs11 import Pkcs11Signer, open_signer
from bpfseal.signing.pkcs11_uri import Pkcs11Uri
from bpfseal.signing.signer import SIGNING_HASHES, Signer, load_signer
from bpfseal.signing.verify import verify_signature
from support import softhsm

from .support import PAYLOAD


def opened(
    path: str, *, pin: str | None = softhsm.PIN, certificate: bytes | None = None
) -> Pkcs11Signer:
    return open_signer(Pkcs11Uri.parse(softhsm.uri(path)), lambda _: pin, certificate)


def refused(kind: type[BpfsealError], path: str, **options: Any) -> BpfsealError:
    with pytest.raises(kind) as caught, opened(path, **options):
        pass
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_key_on_a_token_is_a_signer() -> None:
    with opened("token=release;object=rsa2048") as signer:
        usable: Signer = signer
        assert usable.algorithm == "rsa"
        assert usable.certificate == Certificate.from_der(softhsm.pair("rsa2048").certificate_der)


@pytest.mark.parametrize("hash_name", SIGNING_HASHES)
def test_an_rsa_signature_is_the_one_that_the_key_in_a_file_makes(hash_name: str) -> None:
    pair = softhsm.pair("rsa2048")
    expected = cms.build(
        PAYLOAD, load_signer(pair.private_key_pem, pair.certificate_pem), hash_name
    )
    with opened("token=release;object=rsa2048") as signer:
        assert cms.build(PAYLOAD, signer, hash_name) == expected


@pytest.mark.parametrize("hash_name", SIGNING_HASHES)
@pytest.mark.parametrize("key_type", ["p256", "p384"])
def test_an_ecdsa_signature_verifies(key_type: str, hash_name: str) -> None:
    pair = softhsm.pair(key_type)
    path = f"token=release;id={softhsm.KEYS[key_type]}"
    with opened(path, certificate=pair.certificate_pem) as signer:
        message = cms.build(PAYLOAD, signer, hash_name)
    trusted = [Certificate.from_der(pair.certificate_der)]
    assert verify_signature(message, PAYLOAD, trusted).digest == hash_name


@pytest.mark.parametrize(
    "path",
    [
        "token=release;object=p256",
        "token=release;id=%02",
        "token=release;id=%02;object=p256;type=private",
        "token=release;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;object=p256",
    ],
)
def test_a_key_is_found_by_what_the_uri_says(path: str) -> None:
    with opened(path) as signer:
        assert signer.certificate.key_type == "p256"


def test_a_given_certificate_wins_over_the_one_on_the_token() -> None:
    pair = softhsm.pair("twin")
    with opened("token=release;id=%05", certificate=pair.certificate_pem) as signer:
        assert signer.sign(PAYLOAD, "sha256")


@pytest.mark.parametrize(
    ("path", "certificate"),
    [
        ("token=release;id=%05", None),
        ("token=release;object=rsa2048", "twin"),
        ("token=release;object=p256", "p384"),
        ("token=release;object=p256", "rsa2048"),
    ],
)
def test_the_certificate_of_another_key_is_refused(path: str, certificate: str | None) -> None:
    der = None if certificate is None else softhsm.pair(certificate).certificate_der
    error = refused(InputError, path, certificate=der)
    assert "does not belong to certificate" in error.message


def test_a_signature_that_does_not_verify_does_not_leave_the_signer() -> None:
    with opened("token=release;object=rsa2048") as signer:
        signer.certificate = Certificate.from_der(softhsm.pair("twin").certificate_der)
        with pytest.raises(InputError, match="does not belong"):
            signer.sign(PAYLOAD, "sha256")


def test_a_key_without_a_certificate_anywhere_is_a_usage_error() -> None:
    error = refused(UsageError, "token=release;object=p384")
    assert error.hint == "--certificate FILE"


@pytest.mark.parametrize("pin", ["9999", "1", "x" * 300])
def test_a_wrong_pin_is_bad_input(pin: str) -> None:
    error = refused(InputError, "token=release;object=p256", pin=pin)
    assert error.message == "wrong PIN for token release"
    assert pin not in str(error)


def test_no_pin_is_a_usage_error() -> None:
    assert "--pin-file" in refused(UsageError, "token=release;object=p256", pin=None).hint


def test_a_token_that_is_not_there_is_a_missing_capability() -> None:
    error = refused(CapabilityError, "token=lost;object=p256")
    assert error.message == "no token fits pkcs11:token=lost;object=p256"


@pytest.mark.parametrize("path", ["token=release;object=lost", "token=other;object=p256"])
def test_a_key_that_is_not_there_is_a_missing_capability(path: str) -> None:
    assert "has no private key that fits" in refused(CapabilityError, path).message


def test_several_tokens_that_fit_are_a_usage_error() -> None:
    error = refused(UsageError, "object=p256")
    assert "release" in error.message
    assert "other" in error.message


def test_several_keys_that_fit_are_a_usage_error_with_their_ids() -> None:
    error = refused(UsageError, "token=release;object=twin")
    assert "%04" in error.message
    assert "%05" in error.message


def test_a_key_that_no_kernel_verifies_loaders_with_is_refused() -> None:
    from bpfseal.signing import keygen, mldsa

    if not mldsa.available():
        pytest.skip("the installed cryptography has no ML-DSA")
    made = keygen.generate("mldsa44", "not on a token")
    error = refused(UnsupportedError, "token=release;object=p256", certificate=made.certificate_der)
    assert "on a token" in error.message


@pytest.mark.parametrize("query", ["module-path=/nowhere/lib.so", "module-name=nowhere"])
def test_a_library_that_is_not_there_is_a_missing_capability(query: str) -> None:
    softhsm.module()
    with pytest.raises(CapabilityError, match="PKCS #11 library"):
        open_signer(Pkcs11Uri.parse(f"pkcs11:object=x?{query}"), lambda _: None)


def test_a_file_that_is_no_library_is_a_missing_capability(tmp_path: Path) -> None:
    softhsm.module()
    (tmp_path / "lib.so").write_text("text")
    uri = Pkcs11Uri.parse(f"pkcs11:object=x?module-path={tmp_path}/lib.so")
    with pytest.raises(CapabilityError, match="cannot be used") as caught:
        open_signer(uri, lambda _: None)
    assert "\n" not in str(caught.value)


def test_a_key_that_wants_the_pin_for_each_signature_gets_it() -> None:
    import pkcs11
    from pkcs11.util.rsa import decode_rsa_private_key

    pair = softhsm.pair("twin")
    key = load_pem_private_key(pair.private_key_pem, None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    library = pkcs11.lib(str(Path(softhsm.module()).resolve()))
    with library.get_token(token_label=softhsm.TOKEN_LABELS[1]).open(
        rw=True, user_pin=softhsm.PIN
    ) as session:
        session.create_object(
            decode_rsa_private_key(der)
            | {
                pkcs11.Attribute.TOKEN: True,
                pkcs11.Attribute.LABEL: "careful",
                pkcs11.Attribute.ALWAYS_AUTHENTICATE: True,
            }
        )
    with opened("token=other;object=careful", certificate=pair.certificate_pem) as signer:
        assert signer.sign(PAYLOAD, "sha256") == signer.sign(PAYLOAD, "sha256")


def test_a_library_is_found_by_its_name() -> None:
    softhsm.module()
    uri = Pkcs11Uri.parse("pkcs11:token=release;object=p256?module-name=softhsm2")
    with open_signer(uri, lambda _: softhsm.PIN) as signer:
        assert signer.sign(PAYLOAD, "sha256")


def test_without_python_pkcs11_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "pkcs11":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CapabilityError) as caught:
        open_signer(Pkcs11Uri.parse("pkcs11:object=x"), lambda _: None)
    assert caught.value.hint == "pip install 'bpfseal[hsm]'"
