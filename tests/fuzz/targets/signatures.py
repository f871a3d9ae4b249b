"""Messages, certificates, keys and URIs."""

from __future__ import annotations

import base64
import contextlib
import json
import lzma
from collections.abc import Sequence
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from bpfseal.bpf.uapi import KeyringId, ProgType
from bpfseal.errors import BpfsealError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import ProgLoad
from bpfseal.release import NEWEST
from bpfseal.signing import cms, pkcs7_parser
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs11_uri import Pkcs11Uri
from bpfseal.signing.signer import is_encrypted, load_signer
from bpfseal.signing.trust import read_certificates
from bpfseal.signing.verify import verify_signature
from support.files import ROOT

from ..mutators import DER, PEM, TEXT
from .base import AT, Target, certificate_file, key_file, signer

_KEYS = ("rsa2048", "p256", "p384")
_PAYLOAD = bytes(range(256)) * 2
_PASSPHRASE = b"test"
_EACH = 8
"""One of so many measured messages is a seed."""


def _certificates() -> list[Certificate]:
    return [signer(name).certificate for name in _KEYS]


@cache
def _measured(name: str) -> dict[str, Any]:
    """Return what real kernels were asked (tests/kernel/model/measured/README.md)."""
    path = ROOT / "tests" / "kernel" / "model" / "measured" / f"{name}.json.xz"
    document: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    return document


def _measured_messages() -> list[bytes]:
    return [bytes.fromhex(row[2]) for row in _measured("messages")["messages"][::_EACH]]


def _measured_certificates() -> list[bytes]:
    return [bytes.fromhex(each) for each in _measured("messages")["certificates"].values()]


@cache
def _messages() -> Sequence[bytes]:
    own = [
        cms.build(_PAYLOAD, signer(name), digest)
        for name in _KEYS
        for digest in ("sha256", "sha512")
    ]
    private = serialization.load_pem_private_key(key_file("rsa2048"), None)
    certificate = x509.load_pem_x509_certificate(certificate_file("rsa2048"))
    option = pkcs7.PKCS7Options
    others = []
    for options in (
        [option.DetachedSignature, option.Binary],
        [option.DetachedSignature, option.Binary, option.NoAttributes],
        [option.Binary, option.NoCerts],
    ):
        builder = pkcs7.PKCS7SignatureBuilder().set_data(_PAYLOAD)
        builder = builder.add_signer(certificate, private, certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        others.append(builder.sign(serialization.Encoding.DER, options))
    return (*own, *others, *_measured_messages())


def _message(data: bytes) -> object:
    for algorithm_as_kernel in (False, True):
        with contextlib.suppress(BpfsealError):
            verify_signature(data, _PAYLOAD, _certificates(), at=AT, as_kernel=algorithm_as_kernel)
    return pkcs7_parser.parse(data, NEWEST)


_RELEASES = ("6.18", "7.2", "7.3")


def _model_message(data: bytes) -> object:
    """Let kernels of the model verify it at BPF_PROG_LOAD."""
    insns = bytes.fromhex(_measured("messages")["programs"]["signed"])
    for name in _RELEASES:
        kernel = ModelKernel(profile=PROFILES[name])
        for certificate in _measured_certificates():
            kernel.keyrings.add_key(KeyringId.SESSION, certificate)
        request = ProgLoad(
            ProgType.SYSCALL, "x", insns, "GPL", signature=data, keyring_id=KeyringId.SESSION
        )
        with contextlib.suppress(BpfsealError):
            kernel.prog_load(request)
    return None


def _certificate_seeds() -> Sequence[bytes]:
    own = [signer(name).certificate.der for name in _KEYS]
    return (*own, *(bytes.fromhex(row[1]) for row in _measured("certificates")["certificates"]))


def _certificate(data: bytes) -> object:
    certificate = Certificate.from_pem_or_der(data)
    certificate.problems(AT)
    certificate.require_subject_key_id()
    with contextlib.suppress(BpfsealError):
        verify_signature(_messages()[0], _PAYLOAD, [certificate], at=AT)
    return certificate


def _model_key(data: bytes) -> object:
    for name in _RELEASES:
        kernel = ModelKernel(profile=PROFILES[name])
        with contextlib.suppress(BpfsealError):
            kernel.keyrings.add_key(KeyringId.SESSION, data)
    return None


def _trust_files() -> Sequence[bytes]:
    pems = [certificate_file(name) for name in _KEYS]
    ders = [signer(name).certificate.der for name in _KEYS]
    return (*pems, b"text\n".join(pems), b"".join(ders), ders[0])


def _trust_file(data: bytes) -> object:
    return read_certificates(data)


@cache
def _key_files() -> Sequence[bytes]:
    found = [key_file(name) for name in _KEYS]
    for name in _KEYS[:2]:
        private = serialization.load_pem_private_key(key_file(name), None)
        forms = serialization.PrivateFormat
        plain = serialization.NoEncryption()
        found.append(
            private.private_bytes(serialization.Encoding.PEM, forms.TraditionalOpenSSL, plain)
        )
        found.append(private.private_bytes(serialization.Encoding.DER, forms.PKCS8, plain))
    return (*found, key_file("p256-encrypted"))


def _key_file(data: bytes) -> object:
    name = "p256" if len(data) < 1000 else "rsa2048"
    passphrase = _PASSPHRASE if is_encrypted(data) else None
    return load_signer(data, certificate_file(name), passphrase)


def _uris() -> Sequence[bytes]:
    return (
        b"pkcs11:token=release;id=%01%02?module-path=/usr/lib/softhsm2.so",
        b"pkcs11:object=key;slot-id=7;type=private?pin-source=file:/run/pin&module-name=softhsm2",
        b"pkcs11:?pin-value=1234",
    )


def _uri(data: bytes) -> object:
    return Pkcs11Uri.parse(data.decode("utf-8", "surrogateescape"))


def _pem_message(data: bytes) -> object:
    from .bundles import _statement

    return _statement(data)


def _pem_messages() -> Sequence[bytes]:
    return tuple(
        b"-----BEGIN CMS-----\n" + base64.encodebytes(each) + b"-----END CMS-----\n"
        for each in _messages()
    )


TARGETS = (
    Target("cms", _messages, _message, DER),
    Target("cms-model", _messages, _model_message, DER),
    Target("cms-pem", _pem_messages, _pem_message, PEM),
    Target("certificate", _certificate_seeds, _certificate, DER),
    Target("certificate-model", _certificate_seeds, _model_key, DER),
    Target("trust-file", _trust_files, _trust_file, PEM),
    Target("private-key", _key_files, _key_file, PEM),
    Target("pkcs11-uri", _uris, _uri, TEXT),
)
