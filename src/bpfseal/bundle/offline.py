"""Signing where the key is somewhere else: what must be signed, and a signature from there.

`prepare` says what a signature has to cover, for a machine that has the key and openssl but no
bpfseal. `attach` takes what comes back, a bare signature value or a finished CMS message, and
accepts it only if it verifies.

Example::

    to_sign = prepare(bundle.variant("kfunc"), "sha256")
    ...                                   # to_sign.payload goes away, a signature comes back
    attached = attach(bundle.variant("kfunc"), signature, certificate)
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import re
import shlex
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from bpfseal.bundle.downgrade import refuse_traps, refuse_unchecked_signing
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.bundle.sign import payload_of
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import InputError, UsageError
from bpfseal.loader.model import Loader
from bpfseal.release import ANY_KERNEL
from bpfseal.signing import cms, mldsa, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.signer import COORDINATE_SIZES, ecdsa_der, require_hash, require_signing_key
from bpfseal.signing.verify import VerifiedSignature

Format = Literal["auto", "raw", "cms"]
"""What a signature comes as: ``raw`` is the bare value, ``cms`` a finished message."""

FORMATS: Final[tuple[Format, ...]] = ("auto", "raw", "cms")

_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_PEM: Final = re.compile(rb"-----BEGIN (CMS|PKCS7)-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----")


@dataclass(frozen=True, slots=True)
class Preparation:
    """What has to be signed.

    Attributes:
        loader: the loader that the signature is for.
        hash_name: the digest to sign with.
        payload: the bytes that the signature covers.
    """

    loader: Loader
    hash_name: str
    payload: bytes

    @property
    def digest(self) -> bytes:
        """The digest of the payload."""
        return hashlib.new(self.hash_name, self.payload).digest()

    def commands(self, name: str) -> dict[str, str]:
        """Return the openssl commands that make a signature, quoted for a shell, by their use.

        Args:
            name: the name of the file with the payload, without its directory.
        """
        md, key = self.hash_name, "-inkey key.pem"
        if name.startswith("-"):  # no option, a file
            name = f"./{name}"
        file, digest, sig, message = (
            shlex.quote(f"{name}{suffix}") for suffix in ("", ".digest", ".sig", ".cms")
        )
        return {
            "cms": f"openssl cms -sign -binary -noattr -nocerts -keyid -md {md} -in {file} {key} "
            f"-signer cert.pem -outform DER -out {message}",
            "raw": f"openssl dgst -{md} -sign key.pem -out {sig} {file}",
            "raw-of-digest": f"openssl pkeyutl -sign {key} -in {digest} "
            f"-pkeyopt digest:{md} -out {sig}",
            "raw-mldsa": f"openssl pkeyutl -sign {key} -rawin -in {file} -out {sig}",
        }


def prepare(signed: SignedLoader, hash_name: str = "sha256") -> Preparation:
    """Return what has to be signed.

    Args:
        signed: the loader; signatures that it has do not matter.
        hash_name: ``sha256``, ``sha384`` or ``sha512``.

    Raises:
        UsageError: another hash, or the loader is of a scheme without a signature.
        DowngradeTrapError: signed, some kernel would load it with metadata that nobody checks.
    """
    require_hash(hash_name)
    if not signed.loader.scheme.signed_parts:
        raise UsageError(f"scheme {signed.loader.scheme_name} has no signature")
    refuse_unchecked_signing(signed.loader)
    return Preparation(signed.loader, hash_name, payload_of(signed.loader))


def attach(
    signed: SignedLoader,
    signature: bytes,
    certificate: Certificate,
    *,
    hash_name: str = "sha256",
    form: Format = "auto",
) -> tuple[SignedLoader, VerifiedSignature]:
    """Return the loader with a signature that was made elsewhere, and what was verified.

    A signature that is there already, byte for byte, is not added twice.

    Args:
        signed: the loader.
        signature: the bare value (RSA PKCS#1 v1.5; ECDSA as DER or as r and s side by side;
            ML-DSA), or a CMS message in DER or PEM.
        certificate: the certificate of the key that signed, or of one that vouches for it.
        hash_name: the digest of a bare value; a message says itself.
        form: what `signature` is; ``auto`` looks.

    Raises:
        VerificationError: the signature does not verify, a kernel would refuse it, or it would not
            make this loader safe to load.
        InputError: a signature that cannot be read, or bytes after it.
        UnsupportedError: a key that kernels do not verify loaders with.
        UsageError: the loader is of a scheme without a signature.
    """
    payload = prepare(signed, hash_name).payload
    refuse_traps(signed, [certificate])
    if form == "cms" or (form == "auto" and _is_message(signature)):
        message = _der(signature)
        if trailing := len(message) - _size(message):
            raise InputError(f"{trailing} bytes after the CMS message")
    else:
        require_signing_key(certificate)  # its subjectKeyIdentifier names it in the message
        value = _value(signature, certificate)
        message = cms.assemble(value, certificate, certificate.algorithm, hash_name)
    try:
        proven = verify_loader(_with(signed, message, certificate, only=True), [certificate])
    except RefusedError as error:
        if error.errno == errno.EKEYREJECTED and not error.hint:
            error.hint = _hint(certificate, hash_name, len(payload))
        raise
    (verified,) = proven.signatures
    return _with(signed, message, verified.certificate), verified


def _with(
    signed: SignedLoader, message: bytes, certificate: Certificate, *, only: bool = False
) -> SignedLoader:
    signature = Signature(message, certificate.der)
    if only:
        return SignedLoader(signed.loader, (signature,))
    return signed if signature in signed.signatures else signed.with_signature(signature)


def _is_message(signature: bytes) -> bool:
    """Tell a CMS message from a signature value: the OID of SignedData stands at its beginning."""
    return _SIGNED_DATA in signature[:32] or _PEM.match(signature) is not None


def _der(message: bytes) -> bytes:
    """Return a CMS message as DER."""
    if not message.startswith(b"-----BEGIN "):
        return message
    found = _PEM.match(message)
    try:
        return base64.b64decode(b"".join((found[2] if found else b"-").split()), validate=True)
    except binascii.Error as error:
        raise InputError("not a CMS message in PEM", hint="openssl cms -outform DER") from error


def _size(message: bytes) -> int:
    try:
        return pkcs7_parser.parse(message, ANY_KERNEL).size
    except RefusedError as refused:
        if refused.errno == errno.EBADMSG:
            raise InputError(f"not a CMS message that kernels take: {refused}") from refused
        raise


def _value(signature: bytes, certificate: Certificate) -> bytes:
    """Return a bare signature value as CMS holds it.

    Raises:
        InputError: it cannot be one of this key.
    """
    kind = certificate.key_type
    if kind in COORDINATE_SIZES:
        if _is_ecdsa_der(signature):
            return signature
        if len(signature) == 2 * COORDINATE_SIZES[kind]:
            return ecdsa_der(signature)
        raise InputError(f"{len(signature)} bytes that are no ECDSA signature, DER or r and s")
    size = mldsa.SIGNATURE_SIZES.get(kind) or -(-int(kind.removeprefix("rsa")) // 8)
    if len(signature) != size:
        raise InputError(
            f"signature of {len(signature)} bytes; one of the key type {kind} has {size}",
            hint="give the bare signature in binary, or a CMS message in DER",
        )
    return signature


def _is_ecdsa_der(signature: bytes) -> bool:
    try:
        decode_dss_signature(signature)
    except ValueError:
        return False
    return True


def _hint(certificate: Certificate, hash_name: str, size: int) -> str:
    how = {"rsa": f"PKCS#1 v1.5 and {hash_name} (--hash)", "ecdsa": f"{hash_name} (--hash)"}
    return (
        f"sign the {size} bytes that prepare writes for this scheme, "
        f"with {how.get(certificate.algorithm, 'pure ML-DSA')}"
    )
