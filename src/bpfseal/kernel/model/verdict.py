"""What the kernel says of a program's signature: the verdict, and the keyring behind it.

Source: the enums of the series' ``struct bpf_prog_aux::sig`` (include/linux/bpf.h).

Example:
    >>> KeyringKind.of(1)
    <KeyringKind.SECONDARY: 2>
"""

from __future__ import annotations

from enum import IntEnum


class Verdict(IntEnum):
    """``prog->aux->sig.verdict``."""

    UNSIGNED = 0
    OK = 1
    METADATA_VERIFIED = 2


class KeyringKind(IntEnum):
    """``prog->aux->sig.keyring``: the keyring that a signature was verified against."""

    NONE = 0
    BUILTIN = 1
    SECONDARY = 2
    PLATFORM = 3
    USER = 4

    @classmethod
    def of(cls, keyring_id: int) -> KeyringKind:
        """Return the kind of a keyring by the ``keyring_id`` of BPF_PROG_LOAD."""
        return {0: cls.BUILTIN, 1: cls.SECONDARY, 2: cls.PLATFORM}.get(keyring_id, cls.USER)
