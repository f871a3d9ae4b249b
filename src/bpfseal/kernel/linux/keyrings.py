"""Keyrings of the running kernel: where a signature's key must be."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from bpfseal.bpf.uapi import KeyringId
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.linux.syscalls import (
    KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_REVOKE,
    KEYCTL_UNLINK,
    add_key,
    keyctl,
)
from bpfseal.signals import deferred_endings

_SYSTEM: Final = (KeyringId.BUILTIN, KeyringId.SECONDARY, KeyringId.PLATFORM, KeyringId.BPF)
_HINTS: Final = {
    errno.ENOENT: "the kernel lacks the algorithm of the key: RSA with sha256 is what most have",
    errno.ENODEV: "the kernel knows no asymmetric keys (CONFIG_ASYMMETRIC_KEY_TYPE)",
    errno.EACCES: "this process may not write to that keyring",
    errno.EINVAL: "there is no such keyring",
    errno.EDQUOT: "the user's quota of keys is used up",
}

_KEY_TYPE: Final = "asymmetric"
_NAME: Final = "bpfseal"

_thread: Final = threading.local()
"""Whether this thread has a session keyring of its own: credentials belong to threads."""


class LinuxKeyrings:
    """The keyrings that this process can reach."""

    def add_key(self, keyring_id: int, certificate: bytes) -> int:
        """Add an X.509 certificate to a keyring and return the key's serial number.

        The key is a new one, whatever else is in the keyring: one with the same description would
        take its place there (security/keys/keyring.c ``__key_link``), so each has its own.

        A certificate for the session keyring goes into a new one of this thread, which goes away
        with it, so that nothing stays behind in the user's session.

        Args:
            keyring_id: a special id (-3 session, -4 user, -5 user-session) or a serial number.
            certificate: DER of the certificate.

        Raises:
            UsageError: the keyring is one of the system's, which have no id for add_key(2).
            KernelError: ENOENT for an algorithm that the kernel lacks, EBADMSG for no certificate,
                EACCES for a keyring that this process may not write.
        """
        if keyring_id in _SYSTEM:
            raise UsageError(
                f"no process can put a key into the keyring {KeyringId(keyring_id).name.lower()}",
                hint="leave the certificate out, or take the keyring session",
            )
        if keyring_id == KeyringId.SESSION:
            _join_own_session()
        description = f"{_NAME}:{os.urandom(8).hex()}"
        try:
            return add_key(_KEY_TYPE, description, certificate, keyring_id)
        except KernelError as error:
            error.hint = _HINTS.get(error.errno, "")
            raise

    @contextmanager
    def enrolled(self, keyring_id: int, certificates: Iterable[bytes]) -> Iterator[None]:
        """Have certificates in a keyring for a while; afterwards they are not in it any more.

        What others have put into the keyring stays in it, the same certificates as well.

        Raises:
            KernelError: as for `add_key`; what was added before is out again.
        """
        with ExitStack() as added:
            for certificate in certificates:
                with deferred_endings():
                    serial = self.add_key(keyring_id, certificate)
                    added.callback(self._remove, serial, keyring_id)
            yield

    def _remove(self, serial: int, keyring_id: int) -> None:
        """Take a key of ours out; whoever was faster, or closed the keyring, is no error of ours.

        A key that cannot be taken out is revoked: it must not be trusted any longer.
        """
        try:
            self.unlink(serial, keyring_id)
        except KernelError:
            with suppress(KernelError):
                self.revoke(serial)

    def unlink(self, serial: int, keyring_id: int) -> None:
        """Take a key out of a keyring.

        Raises:
            KernelError: ENOENT if it is not in there, EACCES for a keyring of somebody else.
        """
        keyctl(KEYCTL_UNLINK, serial, keyring_id)

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring.

        Raises:
            KernelError: EACCES for a key of somebody else.
        """
        keyctl(KEYCTL_REVOKE, serial)


def _join_own_session() -> None:
    """Give this thread a session keyring of its own, once, however many kernels it opens."""
    if not getattr(_thread, "has_own_session", False):
        keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0)
        _thread.has_own_session = True
