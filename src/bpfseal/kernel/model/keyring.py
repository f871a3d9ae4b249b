"""Keyrings of the kernel model, and the trust that a signature finds in them.

Example:
    >>> keyrings = Keyrings()
    >>> serial = keyrings.add_key(SESSION, certificate_der)
    >>> keyrings.verify(signature, payload, SESSION)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EBADMSG, EINVAL, EKEYREVOKED, ENOKEY
from itertools import count
from typing import Final

from bpfseal.errors import InputError
from bpfseal.kernel.model.refusal import refusal
from bpfseal.signing import cms
from bpfseal.signing.certificate import Certificate, KeyId
from bpfseal.signing.pkcs7 import Pkcs7Error, check_pkcs7

BUILTIN: Final = 0
SECONDARY: Final = 1
PLATFORM: Final = 2
"""``keyring_id`` of the system keyrings (include/linux/verification.h)."""

SESSION: Final = -3
USER: Final = -4
USER_SESSION: Final = -5
"""Special ids of the caller's keyrings (include/uapi/linux/keyctl.h). Those of the thread (-1) and
the process (-2) do not exist until somebody makes them."""

_LOOKUP = "security/keys/process_keys.c lookup_user_key"
_TRUST = "crypto/asymmetric_keys/pkcs7_trust.c pkcs7_validate_trust"
_FIRST_SERIAL: Final = 0x1000_0001


@dataclass(eq=False, slots=True)
class Key:
    """An X.509 key with its serial."""

    serial: int
    certificate: Certificate
    revoked: bool = False


@dataclass(eq=False, slots=True)
class Keyring:
    """A keyring: keys, and links to other keyrings."""

    name: str
    serial: int
    keys: list[Key] = field(default_factory=list)
    links: list[Keyring] = field(default_factory=list)
    revoked: bool = False

    def all_keys(self) -> Iterator[Key]:
        """Yield the keys of this keyring and of those it links to."""
        yield from self.keys
        for linked in self.links:
            yield from linked.all_keys()


class Keyrings:
    """The system keyrings and those of the process that loads.

    As on a real machine the session keyring starts empty, the user-session keyring links to the
    user keyring, the secondary keyring to the builtin one, and nobody has made the thread's and
    the process's keyrings yet.
    """

    def __init__(self) -> None:
        self._serials = count(_FIRST_SERIAL)
        self._by_id: dict[int, Keyring | Key] = {}
        for special, name in (
            (BUILTIN, ".builtin_trusted_keys"),
            (SECONDARY, ".secondary_trusted_keys"),
            (PLATFORM, ".platform"),
            (SESSION, "_ses"),
            (USER, "_uid.0"),
            (USER_SESSION, "_uid_ses.0"),
        ):
            self._by_id[special] = self._by_id[self.add_keyring(name)]
        self._keyring(SECONDARY).links.append(self._keyring(BUILTIN))
        self._keyring(USER_SESSION).links.append(self._keyring(USER))

    def add_keyring(self, name: str) -> int:
        """Make an empty keyring and return its serial."""
        serial = next(self._serials)
        self._by_id[serial] = Keyring(name, serial)
        return serial

    def add_key(self, keyring_id: int, certificate: bytes) -> int:
        """Put an X.509 certificate into a keyring, as ``keyctl padd asymmetric`` does.

        Args:
            keyring_id: a system keyring, a special id or a serial.
            certificate: DER.

        Returns:
            The key's serial.

        Raises:
            KernelError: EINVAL for no such keyring or an empty payload, EBADMSG for bytes that
                are no certificate.
        """
        source = "crypto/asymmetric_keys/asymmetric_type.c asymmetric_key_preparse"
        if not certificate:
            raise refusal(EINVAL, source, "the payload is empty")
        keyring = self._keyring(keyring_id)
        try:
            parsed = Certificate.from_der(certificate)
        except InputError as error:
            raise refusal(EBADMSG, source, str(error)) from error
        key = Key(next(self._serials), parsed)
        self._by_id[key.serial] = key
        keyring.keys.append(key)
        return key.serial

    def revoke(self, serial: int) -> None:
        """Revoke a key or a keyring.

        Raises:
            KernelError: ENOKEY for no such serial.
        """
        if serial not in self._by_id:
            raise refusal(ENOKEY, _LOOKUP, f"no key with serial {serial}")
        self._by_id[serial].revoked = True

    def resolve(self, keyring_id: int) -> Keyring | Key:
        """Return what a ``keyring_id`` names.

        Raises:
            KernelError: EINVAL for an id that names nothing.
        """
        if keyring_id not in self._by_id:
            source = "kernel/bpf/syscall.c bpf_prog_verify_signature"
            raise refusal(EINVAL, source, f"cannot resolve keyring_id {keyring_id}")
        return self._by_id[keyring_id]

    def verify(self, signature: bytes, payload: bytes, trusted: Keyring | Key) -> None:
        """Verify a detached PKCS#7 signature by a key of a keyring.

        Raises:
            KernelError: EBADMSG for a message that does not parse, ENOPKG for an algorithm that
                the kernel lacks, EKEYREJECTED for a signature that does not match, ENOKEY if no
                key of the keyring made it (a single key in place of a keyring holds none),
                EKEYREVOKED if the key or keyring is revoked.
        """

        def find_key(name: KeyId) -> Certificate | None:
            if trusted.revoked:
                raise refusal(EKEYREVOKED, _TRUST, "the keyring is revoked")
            keys = trusted.all_keys() if isinstance(trusted, Keyring) else iter(())
            for key in keys:
                if key.certificate.is_named_by(name):
                    if key.revoked:
                        raise refusal(EKEYREVOKED, _TRUST, "the signer's key is revoked")
                    return key.certificate
            return None

        source = "certs/system_keyring.c verify_pkcs7_signature"
        try:
            check_pkcs7(cms.parse(signature), payload, find_key)
        except InputError as error:
            raise refusal(EBADMSG, source, error.message) from error
        except Pkcs7Error as error:
            raise refusal(error.errno, source, error.reason) from error

    def _keyring(self, keyring_id: int) -> Keyring:
        found = self._by_id.get(keyring_id)
        if not isinstance(found, Keyring):
            raise refusal(EINVAL, _LOOKUP, f"{keyring_id} names no keyring")
        return found
