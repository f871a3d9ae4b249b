"""Signatures that openssl makes elsewhere."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.offline import attach, prepare
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import BpfsealError, InputError, UnsupportedError, UsageError, VerificationError
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.object.target import DEFAULT_TARGET
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing import cms, keygen, mldsa
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair
from bpfseal.signing.signer import load_signer

OBJECT = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"
SIZES = {"p256": 32, "p384": 48}


@cache
def loader(scheme_name: str = "loadtime") -> SignedLoader:
    obj = read_object(OBJECT.read_bytes(), OBJECT.name, DEFAULT_TARGET)
    return SignedLoader(generate(obj, scheme_name))


@cache
def pair(key_type: str) -> KeyPair:
    return keygen.generate(key_type, f"offline {key_type}")


def certificate(key_type: str) -> Certificate:
    return Certificate.from_der(pair(key_type).certificate_der)


def run(command: str, folder: Path, key_type: str, payload: bytes) -> None:
    """Run one of the commands that `prepare` suggests, where it says."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command line is missing")
    (folder / "key.pem").write_bytes(pair(key_type).private_key_pem)
    (folder / "cert.pem").write_bytes(pair(key_type).certificate_pem)
    (folder / "x.payload").write_bytes(payload)
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def made(folder: Path, how: str, key_type: str, hash_name: str = "sha256") -> bytes:
    """Return the signature that a suggested command makes over the loadtime loader."""
    to_sign = prepare(loader(), hash_name)
    (folder / "x.payload.digest").write_bytes(to_sign.digest)
    run(to_sign.commands("x.payload")[how], folder, key_type, to_sign.payload)
    return (folder / f"x.payload.{'cms' if how == 'cms' else 'sig'}").read_bytes()


def refused(
    kind: type[BpfsealError], signature: bytes, key_type: str = "rsa2048", **options: Any
) -> BpfsealError:
    with pytest.raises(kind) as caught:
        attach(loader(), signature, certificate(key_type), **options)
    return caught.value


@pytest.mark.parametrize("scheme_name", SIGNED_SCHEMES)
def test_the_payload_is_what_the_scheme_signs(scheme_name: str) -> None:
    signed = loader(scheme_name)
    to_sign = prepare(signed, "sha384")
    parts = {"insns": signed.loader.insns, "btf": signed.loader.btf}
    parts["metadata"] = signed.loader.metadata
    assert to_sign.payload == b"".join(parts[part] for part in signed.loader.scheme.signed_parts)
    assert to_sign.digest == hashlib.sha384(to_sign.payload).digest()


@pytest.mark.parametrize("how", ["cms", "raw", "raw-of-digest"])
@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("key_type", ["rsa2048", "p256", "p384"])
def test_what_the_suggested_commands_make_is_attached(
    key_type: str, hash_name: str, how: str, tmp_path: Path
) -> None:
    signature = made(tmp_path, how, key_type, hash_name)
    attached, verified = attach(loader(), signature, certificate(key_type), hash_name=hash_name)
    assert verified.certificate == certificate(key_type)
    assert verified.digest == hash_name
    assert len(attached.signatures) == 1


@pytest.mark.parametrize("how", ["cms", "raw", "raw-of-digest"])
def test_an_rsa_signature_gives_the_same_bundle_as_signing_here(how: str, tmp_path: Path) -> None:
    attached, _ = attach(loader(), made(tmp_path, how, "rsa2048"), certificate("rsa2048"))
    signer = load_signer(pair("rsa2048").private_key_pem, pair("rsa2048").certificate_pem)
    assert attached == sign_loader(loader(), signer)


@pytest.mark.parametrize("key_type", ["p256", "p384"])
def test_r_and_s_side_by_side_are_a_raw_signature(key_type: str, tmp_path: Path) -> None:
    numbers = decode_dss_signature(made(tmp_path, "raw", key_type))
    bare = b"".join(number.to_bytes(SIZES[key_type], "big") for number in numbers)
    attached, _ = attach(loader(), bare, certificate(key_type))
    assert len(attached.signatures) == 1


def test_a_message_in_pem_is_read(tmp_path: Path) -> None:
    der = made(tmp_path, "cms", "p256")
    (tmp_path / "der").write_bytes(der)
    command = ("openssl", "cms", "-cmsout", "-inform", "DER", "-in", "der", "-outform", "PEM")
    pem = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
    assert attach(loader(), pem, certificate("p256")) == attach(loader(), der, certificate("p256"))


@pytest.mark.skipif(not mldsa.available(), reason="the installed cryptography has no ML-DSA")
@pytest.mark.parametrize("key_type", mldsa.KINDS)
def test_a_raw_ml_dsa_signature_is_attached_with_a_problem_named(key_type: str) -> None:
    signer = load_signer(pair(key_type).private_key_pem, pair(key_type).certificate_pem)
    signature = signer.sign(prepare(loader()).payload, "sha256")
    attached, verified = attach(loader(), signature, certificate(key_type))
    assert len(attached.signatures) == 1
    assert "no ML-DSA" in " ".join(verified.problems)


def test_other_signatures_stay_and_the_same_one_is_not_added_twice(tmp_path: Path) -> None:
    signature = made(tmp_path, "raw", "rsa2048")
    signer = load_signer(pair("p256").private_key_pem, pair("p256").certificate_pem)
    both, _ = attach(sign_loader(loader(), signer), signature, certificate("rsa2048"))
    assert len(both.signatures) == 2
    assert attach(both, signature, certificate("rsa2048"))[0] == both


def test_a_signature_over_another_loader_is_refused_with_what_to_do(tmp_path: Path) -> None:
    signature = made(tmp_path, "raw", "rsa2048")
    with pytest.raises(VerificationError, match="EKEYREJECTED") as caught:
        attach(loader("kfunc"), signature, certificate("rsa2048"))
    assert "that prepare writes for this scheme" in caught.value.hint


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_a_raw_signature_with_another_hash_is_refused(key_type: str, tmp_path: Path) -> None:
    refused(VerificationError, made(tmp_path, "raw", key_type, "sha512"), key_type)


def test_the_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    for how in ("raw", "cms"):
        signature = made(tmp_path, how, "rsa2048")
        with pytest.raises(VerificationError):
            attach(loader(), signature, Certificate.from_der(other().certificate_der))


@cache
def other() -> KeyPair:
    return keygen.generate("rsa2048", "somebody else")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "signed attribute smimeCapabilities"),
        ("-noattr -nodetach", "more than 8192"),
        ("-noattr -keyopt rsa_padding_mode:pss", "ENOPKG"),
        ("-noattr -md md5", "ENOPKG"),
    ],
)
def test_a_message_that_kernels_refuse_is_refused(
    options: str, reason: str, tmp_path: Path
) -> None:
    command = (
        "openssl cms -sign -binary -in x.payload -inkey key.pem -signer cert.pem "
        f"-outform DER -out x.cms {options}"
    )
    run(command, tmp_path, "rsa2048", prepare(loader()).payload)
    assert reason in str(refused(VerificationError, (tmp_path / "x.cms").read_bytes()))


def test_a_raw_rsa_pss_signature_is_refused(tmp_path: Path) -> None:
    command = "openssl dgst -sha256 -sign key.pem -sigopt rsa_padding_mode:pss -out x.sig x.payload"
    run(command, tmp_path, "rsa2048", prepare(loader()).payload)
    refused(VerificationError, (tmp_path / "x.sig").read_bytes())


def test_bytes_after_a_message_are_refused(tmp_path: Path) -> None:
    error = refused(InputError, made(tmp_path, "cms", "rsa2048") + b"\0")
    assert error.message == "1 bytes after the CMS message"


@pytest.mark.parametrize("signature", [b"", b"junk", bytes(255), bytes(257)])
@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_what_cannot_be_a_signature_of_the_key_is_bad_input(
    signature: bytes, key_type: str
) -> None:
    refused(InputError, signature, key_type)


def test_a_truncated_message_is_refused(tmp_path: Path) -> None:
    refused(InputError, made(tmp_path, "cms", "rsa2048")[:-1])


def test_the_format_can_be_forced(tmp_path: Path) -> None:
    message, value = made(tmp_path, "cms", "p256"), made(tmp_path, "raw", "p256")
    assert attach(loader(), message, certificate("p256"), form="cms")
    assert attach(loader(), value, certificate("p256"), form="raw")
    refused(InputError, message, "p256", form="raw")
    refused(InputError, value, "p256", form="cms")


def test_metadata_that_the_instructions_do_not_vouch_for_is_refused() -> None:
    from dataclasses import replace

    changed = SignedLoader(replace(loader("inline").loader, metadata=b"other"))
    signer = load_signer(pair("rsa2048").private_key_pem, pair("rsa2048").certificate_pem)
    message = cms.build(prepare(changed).payload, signer)
    with pytest.raises(VerificationError):
        attach(changed, message, certificate("rsa2048"))


def test_a_scheme_without_a_signature_has_nothing_to_prepare() -> None:
    with pytest.raises(UsageError, match="scheme unsigned has no signature"):
        prepare(loader("unsigned"))


def test_a_key_that_kernels_do_not_verify_with_is_refused(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ed25519 -nodes -keyout k -subj /CN=ed -out ed.pem"
    run(command, tmp_path, "p256", b"")
    with pytest.raises(InputError, match="-ENOPKG: certificate signed in a way"):
        Certificate.from_pem_or_der((tmp_path / "ed.pem").read_bytes())


def test_a_key_too_short_to_sign_loaders_is_refused(tmp_path: Path) -> None:
    run(
        "openssl req -x509 -newkey rsa:1024 -nodes -keyout k -subj /CN=x -out x.pem",
        tmp_path,
        "p256",
        b"",
    )
    short = Certificate.from_pem_or_der((tmp_path / "x.pem").read_bytes())
    with pytest.raises(UnsupportedError):
        attach(loader(), bytes(128), short)
