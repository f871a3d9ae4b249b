"""Keyrings of the kernel model, and the trust that a signature finds in them.

Example:
    >>> keyrings = Keyrings(PROFILES["7.3"])
    >>> serial = keyrings.add_key(KeyringId.SESSION, certificate_der)
    >>> keyrings.verify(signature, payload, keyrings.resolve(KeyringId.SESSION))
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import (
    EEXIST,
    EINVAL,
    EKEYREVOKED,
    ENOENT,
    ENOKEY,
    ENOPKG,
    EOPNOTSUPP,
    EPERM,
)
from itertools import count
from typing import Final, Literal

from bpfseal.bpf.uapi import KeyringId
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.refusal import refusal
from bpfseal.signing import pkcs7, pkcs7_parser, public_key, x509
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.pkcs7 import Payload
from bpfseal.signing.x509 import ParsedCertificate

SYSTEM: Final = frozenset({KeyringId.BUILTIN, KeyringId.SECONDARY, KeyringId.PLATFORM})

Restriction = Literal["reject", "builtin_trusted"]
"""What ``keyctl restrict_keyring`` says of keys that are still to come: none, or those that a key
of the builtin keyring has signed."""

_LOOKUP = "security/keys/process_keys.c lookup_user_key"
_TRUST = "crypto/asymmetric_keys/pkcs7_trust.c pkcs7_validate_trust"
_PARSE = "crypto/asymmetric_keys/x509_public_key.c x509_key_preparse"
_RESTRICT = "security/keys/keyring.c __key_link_check_restriction"
_FIRST_SERIAL: Final = 0x1000_0001


@dataclass(eq=False, slots=True)
class Key:
    """An X.509 key with its serial."""

    serial: int
    certificate: ParsedCertificate
    description: str
    revoked: bool = False


@dataclass(eq=False, slots=True)
class Keyring:
    """A keyring: keys, and links to other keyrings."""

    name: str
    serial: int
    keys: list[Key] = field(default_factory=list)
    links: list[Keyring] = field(default_factory=list)
    revoked: bool = False
    invalidated: bool = False
    restriction: Restriction | None = None

    def all_keys(self) -> Iterator[Key]:
        """Yield the keys of this keyring and of those it links to."""
        yield from self.keys
        for linked in self.links:
            if not linked.revoked:
                yield from linked.all_keys()


class Keyrings:
    """The system keyrings and those of the process that loads.

    As on a real machine the session keyring starts empty, the user-session keyring links to the
    user keyring, the secondary keyring to the builtin one, and nobody has made the thread's and
    the process's keyrings yet.

    Args:
        profile: which kernel it is.
        bpf_unsealed: the boot parameter ``bpf.keyring_unsealed=1``.
    """

    def __init__(self, profile: Profile, *, bpf_unsealed: bool = False) -> None:
        self._profile = profile
        self._is_bpf_unsealed = profile.has_bpf_keyring and bpf_unsealed
        self._serials = count(_FIRST_SERIAL)
        self._by_id: dict[int, Keyring | Key] = {}
        for special, name in (
            (KeyringId.BUILTIN, ".builtin_trusted_keys"),
            (KeyringId.SECONDARY, ".secondary_trusted_keys"),
            (KeyringId.PLATFORM, ".platform"),
            (KeyringId.SESSION, "_ses"),
            (KeyringId.USER, "_uid.0"),
            (KeyringId.USER_SESSION, "_uid_ses.0"),
        ):
            self._by_id[special] = self._by_id[self.add_keyring(name)]
        self._keyring(KeyringId.SECONDARY).links.append(self._keyring(KeyringId.BUILTIN))
        self._keyring(KeyringId.USER_SESSION).links.append(self._keyring(KeyringId.USER))
        if profile.has_bpf_keyring:
            self._by_id[KeyringId.BPF] = self._by_id[self.add_keyring(".bpf")]
            if not bpf_unsealed:
                self._keyring(KeyringId.BPF).restriction = "reject"

    def add_keyring(self, name: str) -> int:
        """Make an empty keyring and return its serial."""
        serial = next(self._serials)
        self._by_id[serial] = Keyring(name, serial)
        return serial

    def join_session(self) -> int:
        """Start a new, empty session keyring and return its serial (``keyctl session``)."""
        serial = self.add_keyring("_ses")
        self._by_id[KeyringId.SESSION] = self._by_id[serial]
        return serial

    def serial(self, keyring_id: int) -> int:
        """Return the serial of a keyring (KEYCTL_GET_KEYRING_ID).

        Raises:
            KernelError: EINVAL for no such keyring.
        """
        return self._keyring(keyring_id).serial

    def add_key(self, keyring_id: int, certificate: bytes, description: str = "") -> int:
        """Put an X.509 certificate into a keyring, as ``keyctl padd asymmetric`` does.

        Args:
            keyring_id: a system keyring, a special id or a serial.
            certificate: DER.
            description: the key's name; without one it is named after the certificate. A key of
                the same name in this keyring goes away.

        Returns:
            The key's serial.

        Raises:
            KernelError: EINVAL for no such keyring or an empty payload; what
                `bpfseal.signing.x509.parse` refuses: EBADMSG for bytes that are no certificate,
                EINVAL, EBADMSG or EKEYREJECTED for one whose own signature is bad, ENOENT or
                ENOPKG for a key of a kind that the kernel cannot verify with; EKEYREVOKED for a
                revoked keyring, EPERM or ENOKEY for a restricted one.
        """
        source = "crypto/asymmetric_keys/asymmetric_type.c asymmetric_key_preparse"
        if not certificate:
            raise refusal(EINVAL, source, "the payload is empty")
        if keyring_id in (KeyringId.THREAD, KeyringId.PROCESS) and keyring_id not in self._by_id:
            name = "_tid" if keyring_id == KeyringId.THREAD else "_pid"
            self._by_id[keyring_id] = self._by_id[self.add_keyring(name)]
        keyring = self._keyring(keyring_id)
        try:
            parsed = x509.parse(certificate, self._profile.crypto)
        except RefusedError as refused:
            raise refusal(refused.errno, _PARSE, refused.reason) from refused
        if keyring.revoked:
            raise refusal(EKEYREVOKED, "security/keys/key.c key_create_or_update", "it is revoked")
        self._check_restriction(keyring, parsed)
        fingerprint = hashlib.sha256(certificate).hexdigest()
        key = Key(next(self._serials), parsed, description or fingerprint)
        self._by_id[key.serial] = key
        keyring.keys[:] = [old for old in keyring.keys if old.description != key.description]
        keyring.keys.append(key)
        return key.serial

    def _check_restriction(self, keyring: Keyring, certificate: ParsedCertificate) -> None:
        """``restrict_link_by_signature`` with the builtin keyring."""
        if keyring.restriction == "reject":
            raise refusal(EPERM, _RESTRICT, f"{keyring.name} takes no more keys")
        if keyring.restriction != "builtin_trusted":
            return
        if certificate.has_unsupported_signature:
            raise refusal(ENOPKG, _RESTRICT, "it is signed in a way that the kernel cannot verify")
        for key in self._keyring(KeyringId.BUILTIN).keys:
            if _is_issuer(key.certificate, certificate):
                self._check_issued(key.certificate, certificate)
                return
        raise refusal(ENOKEY, _RESTRICT, "no builtin key has signed this one")

    def _check_issued(self, issuer: ParsedCertificate, certificate: ParsedCertificate) -> None:
        try:
            public_key.verify(issuer.key, certificate.signature, self._profile.algorithms)
        except RefusedError as refused:
            raise refusal(refused.errno, _RESTRICT, refused.reason) from refused

    def revoke(self, serial: int) -> None:
        """Revoke a key or a keyring.

        Raises:
            KernelError: ENOKEY for no such serial.
        """
        self._known(serial).revoked = True

    def invalidate(self, serial: int) -> None:
        """Invalidate a key or a keyring: the garbage collector takes it out of all keyrings.

        A real kernel collects soon after; until then a search answers as for a revoked key.

        Raises:
            KernelError: ENOKEY for no such serial.
        """
        gone = self._known(serial)
        if isinstance(gone, Keyring):
            gone.invalidated = True
        else:
            for keyring in self._all_keyrings():
                keyring.keys[:] = [key for key in keyring.keys if key is not gone]
        del self._by_id[serial]

    def unlink(self, serial: int, keyring_id: int) -> None:
        """Take a key out of a keyring.

        Raises:
            KernelError: ENOKEY for no such serial, ENOENT for a key that is not in the keyring,
                EINVAL for no such keyring.
        """
        key, keyring = self._known(serial), self._keyring(keyring_id)
        if key not in keyring.keys:
            raise refusal(ENOENT, "security/keys/keyring.c key_unlink", "the key is not in it")
        keyring.keys[:] = [kept for kept in keyring.keys if kept is not key]

    def restrict(self, keyring_id: int, restriction: Restriction = "reject") -> None:
        """Restrict what keys a keyring takes from now on.

        Raises:
            KernelError: EINVAL for no such keyring, EEXIST for one that is restricted already.
        """
        keyring = self._keyring(keyring_id)
        if keyring.restriction is not None:
            raise refusal(EEXIST, "security/keys/keyring.c keyring_restrict", "it is already")
        keyring.restriction = restriction

    def resolve(self, keyring_id: int) -> Keyring | Key:
        """Return what a ``keyring_id`` names.

        Raises:
            KernelError: EINVAL for an id that names nothing, EPERM for a keyring of the caller's
                where the keyring ``.bpf`` is unsealed at boot, whether or not it holds a key.
        """
        source = "kernel/bpf/helpers.c bpf_lookup_user_key, bpf_lookup_system_key"
        if keyring_id not in self._by_id:
            raise refusal(EINVAL, source, f"cannot resolve keyring_id {keyring_id}")
        if keyring_id not in SYSTEM | {KeyringId.BPF} and self._is_bpf_unsealed:
            raise refusal(EPERM, source, "only the system's keyrings and .bpf count")
        found = self._by_id[keyring_id]
        if keyring_id == KeyringId.BPF and isinstance(found, Keyring) and not found.restriction:
            return Keyring(found.name, found.serial)  # not consulted before it is restricted
        return found

    def verify(self, signature: bytes, payload: bytes, trusted: Keyring | Key) -> None:
        """Verify a detached PKCS#7 signature by a key of a keyring.

        Raises:
            KernelError: EOPNOTSUPP from a kernel without PKCS#7, EKEYREVOKED for a keyring that is
                revoked, EBADMSG for a message that does not parse, ENOPKG for an algorithm that
                the kernel lacks, EKEYREJECTED for a signature that does not match, ENOKEY if no
                key of the keyring made it (a single key in place of a keyring holds none),
                EKEYREVOKED if there is none but a revoked one.
        """
        profile = self._profile
        source = "kernel/bpf/helpers.c bpf_verify_pkcs7_signature"
        if not profile.has_data_verification:
            raise refusal(EOPNOTSUPP, source, "a kernel without CONFIG_SYSTEM_DATA_VERIFICATION")
        if isinstance(trusted, Keyring) and trusted.invalidated:
            raise refusal(ENOKEY, source, "the keyring is invalidated (key_validate)")
        if trusted.revoked:
            raise refusal(EKEYREVOKED, source, "the keyring is revoked (key_validate)")

        def find_key(name: bytes) -> ParsedCertificate | None:
            keys = list(trusted.all_keys()) if isinstance(trusted, Keyring) else []
            for key in keys:
                if not key.revoked and key.certificate.is_named(name):
                    return key.certificate
            if any(key.revoked for key in keys):
                raise refusal(EKEYREVOKED, _TRUST, "no key fits, and one is revoked")
            return None

        source = "certs/system_keyring.c verify_pkcs7_signature"
        try:
            message = pkcs7_parser.parse(signature, profile.crypto)
            pkcs7.check(message, Payload(payload), find_key, profile.crypto)
        except RefusedError as refused:
            raise refusal(refused.errno, source, refused.reason) from refused

    def _keyring(self, keyring_id: int) -> Keyring:
        found = self._by_id.get(keyring_id)
        if not isinstance(found, Keyring):
            raise refusal(EINVAL, _LOOKUP, f"{keyring_id} names no keyring")
        return found

    def _known(self, serial: int) -> Keyring | Key:
        if serial not in self._by_id:
            raise refusal(ENOKEY, _LOOKUP, f"no key with serial {serial}")
        return self._by_id[serial]

    def _all_keyrings(self) -> Iterator[Keyring]:
        return (item for item in self._by_id.values() if isinstance(item, Keyring))


def _is_issuer(key: ParsedCertificate, certificate: ParsedCertificate) -> bool:
    """Tell whether a certificate names a key as its issuer's (``find_asymmetric_key``)."""
    first, second = certificate.authority, certificate.authority_key_id
    if first is not None:
        return key.is_named(first) and second in (None, key.key_id)
    if second is not None:
        return key.is_named(second)
    return key.subject == certificate.issuer
