"""Keyrings of the running kernel: where a signature's key must be."""

from __future__ import annotations

from typing import Final

from bpfseal.bpf.uapi import KeyringId
from bpfseal.kernel.linux.syscalls import (
    KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_REVOKE,
    add_key,
    keyctl,
)

_KEY_TYPE: Final = "asymmetric"
_DESCRIPTION: Final = "bpfseal"


class LinuxKeyrings:
    """The keyrings that this process can reach."""

    def __init__(self) -> None:
        self._has_own_session = False

    def add_key(self, keyring_id: int, certificate: bytes) -> int:
        """Add an X.509 certificate to a keyring and return the key's serial number.

        A certificate for the session keyring goes into a new one of this process, which goes away
        with it, so that nothing stays behind in the user's session.

        Args:
            keyring_id: a special id (-3 session, -4 user, -5 user-session) or a serial number.
            certificate: DER of the certificate.

        Raises:
            KernelError: ENOENT for an algorithm that the kernel lacks, EBADMSG for no certificate,
                EACCES for a keyring that this process may not write.
        """
        if keyring_id == KeyringId.SESSION and not self._has_own_session:
            keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0)
            self._has_own_session = True
        return add_key(_KEY_TYPE, _DESCRIPTION, certificate, keyring_id)

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring.

        Raises:
            KernelError: EACCES for a key of somebody else.
        """
        keyctl(KEYCTL_REVOKE, serial)
