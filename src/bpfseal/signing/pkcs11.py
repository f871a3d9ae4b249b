"""Signers whose private key lies on a PKCS #11 token: a smart card, an HSM, SoftHSM.

The key never leaves the token: it signs a digest (CKM_RSA_PKCS, CKM_ECDSA). What comes back is
verified with the certificate before anyone gets to see it. Needs the extra ``bpfseal[hsm]``.

Example::

    uri = Pkcs11Uri.parse("pkcs11:token=release;object=loader?module-name=softhsm2")
    with open_signer(uri, lambda token: "1234", certificate_pem) as signer:
        signature = signer.sign(payload, "sha256")
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from bpfseal.errors import CapabilityError, InputError, UnsupportedError, UsageError
from bpfseal.errors import VerificationError as BadSignatureError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs11_uri import Pkcs11Uri
from bpfseal.signing.signer import (
    COORDINATE_SIZES,
    ecdsa_der,
    require_hash,
    require_signing_key,
)

if TYPE_CHECKING:
    import pkcs11

AskPin = Callable[[str], str | None]
"""Returns the PIN of the token with this label, or None. Asked only if the token wants one."""

MAX_OBJECTS: Final = 64
"""The most objects of a token that are looked at to tell them apart."""

_MODULE_FOLDERS: Final = (
    "/usr/lib/*/pkcs11",
    "/usr/lib64/pkcs11",
    "/usr/lib/pkcs11",
    "/usr/local/lib/pkcs11",
    "/usr/lib/*/softhsm",
    "/usr/lib/softhsm",
    "/usr/lib/*",
    "/usr/lib64",
    "/usr/lib",
)
"""Where distributions put PKCS #11 libraries, the directory that is made for them first."""

_DEFAULT_MODULE: Final = "p11-kit-proxy"
"""The library that stands for all that are registered on a machine."""

# The DER of DigestInfo (RFC 8017, section 9.2, note 1) up to the digest.
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class Pkcs11Signer:
    """A signer whose private key is on a token; a context manager that ends the session.

    A session belongs to the process that opened it, so a signer cannot be handed to another one.

    Attributes:
        certificate: the certificate of the key.
    """

    def __init__(
        self, session: pkcs11.Session, key: Any, certificate: Certificate, pin: str | None
    ) -> None:
        self.certificate = certificate
        self._session = session
        self._key = key
        self._pin = pin

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session with the token."""
        with _reporting("closing the session"):
            self._session.close()

    @property
    def algorithm(self) -> str:
        """``"rsa"`` (PKCS#1 v1.5) or ``"ecdsa"``."""
        return self.certificate.algorithm

    def sign(self, data: bytes, hash_name: str) -> bytes:
        """Return the signature value over `data`; see `bpfseal.signing.signer.Signer.sign`.

        Raises:
            UsageError: another hash.
            InputError: the certificate is not that of the key.
            CapabilityError: the token does not sign.
        """
        from pkcs11 import Mechanism

        require_hash(hash_name)
        digest = hashlib.new(hash_name, data).digest()
        is_rsa = self.algorithm == "rsa"
        if is_rsa:
            mechanism, block = Mechanism.RSA_PKCS, _DIGEST_INFO[hash_name] + digest
        else:
            # The leftmost bits, as many as the order has (FIPS 186-5, section 6.4.1): some tokens
            # take no more.
            size = COORDINATE_SIZES[self.certificate.key_type]
            mechanism, block = Mechanism.ECDSA, digest[:size]
        with _reporting("signing"):
            value: bytes = self._key.sign(block, mechanism=mechanism, pin=self._pin)
        signature = value if is_rsa else ecdsa_der(value)
        try:
            self.certificate.verify_signature(self.algorithm, hash_name, data, signature)
        except BadSignatureError as error:
            raise _other_key(self.certificate) from error
        return signature


def open_signer(uri: Pkcs11Uri, ask_pin: AskPin, certificate: bytes | None = None) -> Pkcs11Signer:
    """Open a session with a token and find the key that the URI names.

    Args:
        uri: names one private key.
        ask_pin: gives the token's PIN; the URI's own ``pin-value`` and ``pin-source`` are for it to
            look at.
        certificate: the X.509 certificate, PEM or DER; None takes the one on the token that has the
            same id (CKA_ID) as the key.

    Raises:
        CapabilityError: python-pkcs11, the library, the token, or the key is not there, or the
            token refuses.
        UsageError: several tokens or keys fit, there is no certificate, or no PIN.
        InputError: wrong PIN, or a certificate that cannot be read or is of another key.
        UnsupportedError: a key that kernels do not verify loaders with.
    """
    library = _open_library(uri)
    with _reporting("looking for the token"):
        token = _find_token(library, uri)
    session, pin = _log_in(token, ask_pin)
    try:
        with _reporting("looking for the key"):
            key = _find_key(session, uri, token.label)
            der = certificate if certificate is not None else _certificate_of(session, key)
        found = Certificate.from_pem_or_der(der)
        require_signing_key(found)
        _check_kind(key, found)
        with _reporting("reading the public key"):
            _check_public_key(session, key, found)
        return Pkcs11Signer(session, key, found, pin if _wants_pin_each_time(key) else None)
    except BaseException:
        session.close()
        raise


def _open_library(uri: Pkcs11Uri) -> Any:
    try:
        import pkcs11
    except ImportError:
        raise CapabilityError(
            "PKCS #11 needs python-pkcs11, which is not installed",
            hint="pip install 'bpfseal[hsm]'",
        ) from None
    path = uri.module_path or _find_module(uri.module_name or _DEFAULT_MODULE)
    # One library under two names would be initialised twice.
    path = str(Path(path).resolve())
    try:
        return pkcs11.lib(path)
    except (pkcs11.PKCS11Error, OSError) as error:
        text = f"PKCS #11 library cannot be used: {_reason(error)}"
        raise CapabilityError(text, where=path) from error


def _find_module(name: str) -> str:
    for folder in _MODULE_FOLDERS:
        for file_name in (f"{name}.so", f"lib{name}.so"):
            for path in sorted(Path("/").glob(f"{folder[1:]}/{file_name}")):
                return str(path)
    raise CapabilityError(
        f"no PKCS #11 library {name}",
        hint="say which with ?module-path=/path/to/library.so at the end of the URI",
    )


def _find_token(library: Any, uri: Pkcs11Uri) -> pkcs11.Token:
    from pkcs11 import TokenFlag

    found: list[pkcs11.Token] = []
    for slot in library.get_slots(token_present=True):
        token = slot.get_token()
        if token.flags & TokenFlag.TOKEN_INITIALIZED and _fits(token, uri):
            found.append(token)
    if not found:
        raise CapabilityError(
            f"no token fits {uri.path}", hint="pkcs11-tool --list-slots shows what is there"
        )
    if len(found) > 1:
        labels = ", ".join(f"{token.label} ({_serial(token)})" for token in found)
        raise UsageError(f"several tokens fit {uri.path}: {labels}", hint="add token= or serial=")
    return found[0]


def _fits(token: pkcs11.Token, uri: Pkcs11Uri) -> bool:
    return (
        uri.token in (None, token.label)
        and uri.manufacturer in (None, token.manufacturer_id)
        and uri.model in (None, token.model)
        and uri.serial in (None, _serial(token))
        and uri.slot_id in (None, token.slot.slot_id)
    )


def _serial(token: pkcs11.Token) -> str:
    return token.serial.decode("utf-8", "replace").rstrip("\0 ")


def _log_in(token: pkcs11.Token, ask_pin: AskPin) -> tuple[pkcs11.Session, str | None]:
    from pkcs11 import TokenFlag, exceptions
    from pkcs11.types import PROTECTED_AUTH

    pin: Any = None
    if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
        pin = PROTECTED_AUTH
    elif token.flags & TokenFlag.LOGIN_REQUIRED:
        pin = ask_pin(token.label)
        if pin is None:
            raise UsageError(
                f"token {token.label} wants a PIN", hint="--pin-file FILE or --pin-env VARIABLE"
            )
    try:
        with _reporting(f"opening token {token.label}"):
            return token.open(user_pin=pin), pin if isinstance(pin, str) else None
    except CapabilityError as error:
        wrong = (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange)
        if isinstance(error.__cause__, wrong):
            raise InputError(
                f"wrong PIN for token {token.label}",
                hint="a token locks itself after a few wrong ones",
            ) from error
        raise


def _find_key(session: pkcs11.Session, uri: Pkcs11Uri, label: str) -> Any:
    from pkcs11 import Attribute, ObjectClass

    template: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
    if uri.object is not None:
        template[Attribute.LABEL] = uri.object
    if uri.id is not None:
        template[Attribute.ID] = uri.id
    found = _first_objects(session, template)
    if not found:
        raise CapabilityError(
            f"token {label} has no private key that fits {uri.path}",
            hint="pkcs11-tool --login --list-objects shows what is there",
        )
    if len(found) > 1:
        ids = ", ".join(_percent_encoded(key[Attribute.ID]) for key in found)
        raise UsageError(
            f"token {label} has several private keys that fit {uri.path}, with the ids {ids}",
            hint="add id= or object= to the URI",
        )
    if not found[0][Attribute.SIGN]:
        raise UnsupportedError("the key on the token is not meant to sign (CKA_SIGN)")
    return found[0]


def _certificate_of(session: pkcs11.Session, key: Any) -> bytes:
    from pkcs11 import Attribute, CertificateType, ObjectClass

    template = {
        Attribute.CLASS: ObjectClass.CERTIFICATE,
        Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
        Attribute.ID: key[Attribute.ID],
    }
    found = _first_objects(session, template)
    if len(found) != 1:
        raise UsageError(
            f"the token has {len(found)} certificates with the id of the key, not one",
            hint="--certificate FILE",
        )
    return cast("bytes", found[0][Attribute.VALUE])


def _first_objects(session: pkcs11.Session, template: dict[Any, Any]) -> list[Any]:
    with contextlib.closing(cast("Any", session.get_objects(template))) as objects:
        return [found for found, _ in zip(objects, range(MAX_OBJECTS), strict=False)]


def _check_kind(key: Any, certificate: Certificate) -> None:
    from pkcs11 import KeyType

    wanted = {"rsa": KeyType.RSA, "ecdsa": KeyType.EC}.get(certificate.algorithm)
    if wanted is None:
        raise UnsupportedError(
            f"keys of type {certificate.key_type} on a token", hint="use RSA, P-256 or P-384"
        )
    if key.key_type != wanted:
        raise _other_key(certificate)


def _check_public_key(session: pkcs11.Session, key: Any, certificate: Certificate) -> None:
    """Compare the certificate's key with what the token tells; a token need not tell anything."""
    from pkcs11 import Attribute, ObjectClass, PKCS11Error

    template = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: key[Attribute.ID]}
    expected = certificate.public_key_der
    attribute = Attribute.MODULUS if certificate.algorithm == "rsa" else Attribute.EC_POINT
    for holder in (key, *_first_objects(session, template)):
        try:
            value = bytes(holder[attribute])
        except PKCS11Error:
            continue
        # An EC_POINT is an OCTET STRING around the point, which stands bare in the certificate.
        bare = value if attribute == Attribute.MODULUS else value[-_point_size(certificate) :]
        if value and bare.lstrip(b"\0") not in expected:
            raise _other_key(certificate)


def _point_size(certificate: Certificate) -> int:
    return 1 + 2 * COORDINATE_SIZES[certificate.key_type]


def _wants_pin_each_time(key: Any) -> bool:
    from pkcs11 import Attribute, PKCS11Error

    try:
        return bool(key[Attribute.ALWAYS_AUTHENTICATE])
    except PKCS11Error:
        return False


def _other_key(certificate: Certificate) -> InputError:
    return InputError(
        f"the private key on the token does not belong to certificate {certificate.subject}",
        hint="give the certificate that was issued for this key",
    )


def _percent_encoded(data: bytes) -> str:
    return "".join(f"%{byte:02x}" for byte in data) or "(empty)"


@contextlib.contextmanager
def _reporting(step: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    from pkcs11 import PKCS11Error

    try:
        yield
    except PKCS11Error as error:
        raise CapabilityError(f"{step}: the token answers {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
