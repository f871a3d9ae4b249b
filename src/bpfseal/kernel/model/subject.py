"""The kernel model as the subject of scenarios (`bpfseal.kernel.scenario`).

Example:
    >>> subject = boot_model(scenario, PROFILES["7.3"])  # doctest: +SKIP
    >>> run_scenario(scenario, collection, subject, groups_of(PROFILES["7.3"]))  # doctest: +SKIP
"""

from __future__ import annotations

import errno
from contextlib import suppress

from bpfseal.bpf.uapi import KeyringId
from bpfseal.errors import KernelError
from bpfseal.kernel.model.kernel import ModelKernel
from bpfseal.kernel.model.kernel_btf import BtfFile, KernelBtf, SyntheticBtf
from bpfseal.kernel.model.keyring import SYSTEM
from bpfseal.kernel.model.lsm import Hook, Operation, ProgramFacts
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.scenario import ANY, Scenario
from bpfseal.kernel.scenario_keys import key_pair

_FIRST_SPECIAL = -8
"""KEY_SPEC_REQUESTOR_KEYRING, the last of the special ids."""


def groups_of(profile: Profile) -> tuple[str, ...]:
    """Return the names that an expectation for a kernel may go by, the most special first.

    The name itself; ``unverified`` for a kernel that cannot verify signatures; what its signatures
    cover, as ``insns+metadata``, or ``none``; ``any``.
    """
    unverified = () if profile.has_data_verification else ("unverified",)
    return (profile.name, *unverified, "+".join(profile.signed_parts) or "none", ANY)


class ModelSubject:
    """The kernel model as the subject of scenarios."""

    def __init__(self, kernel: ModelKernel) -> None:
        self.kernel = kernel

    def bpf(self, command: int, attributes: bytearray) -> int:
        """Make a raw call to the BPF subsystem."""
        return self.kernel.sys_bpf(command, attributes)

    def allocate(self, data: bytes) -> int:
        """Return the address of these bytes."""
        return self.kernel.allocate(data)

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes at an address."""
        return self.kernel.read_memory(address, size)

    def mmap(self, fd: int, size: int, *, writable: bool) -> int:  # noqa: ARG002 (all of it is mapped)
        """Map a map's values."""
        return self.kernel.mmap(fd, writable=writable)

    def munmap(self, address: int) -> None:
        """Take a mapping away."""
        self.kernel.munmap(address)

    def close(self, fd: int) -> None:
        """Close a fd."""
        self.kernel.close(fd)

    def join_session(self) -> int:
        """Start a new session keyring."""
        return self.kernel.keyrings.join_session()

    def keyring_serial(self, keyring: int) -> int:
        """Return a keyring's serial."""
        return self.kernel.keyrings.serial(_user_id(keyring))

    def add_key(self, keyring: int, description: str, payload: bytes) -> int:
        """Add an X.509 key to a keyring."""
        return self.kernel.keyrings.add_key(_user_id(keyring), payload, description)

    def revoke(self, serial: int) -> None:
        """Revoke a key or keyring."""
        self.kernel.keyrings.revoke(serial)

    def invalidate(self, serial: int) -> None:
        """Invalidate a key or keyring."""
        self.kernel.keyrings.invalidate(serial)

    def unlink(self, serial: int, keyring: int) -> None:
        """Take a key out of a keyring."""
        self.kernel.keyrings.unlink(serial, keyring)

    def restrict(self, keyring: int) -> None:
        """Let a keyring take no more keys."""
        self.kernel.keyrings.restrict(_user_id(keyring))


def _user_id(keyring: int) -> int:
    """Return an id that add_key(2) and keyctl(2) know: those of system keyrings they do not.

    Raises:
        KernelError: EINVAL.
    """
    if keyring in SYSTEM or (keyring < _FIRST_SPECIAL and keyring != KeyringId.BPF):
        raise KernelError(errno.EINVAL, f"{keyring} names no keyring of a user")
    return keyring


def boot_model(scenario: Scenario, profile: Profile) -> ModelSubject:
    """Return the model of a kernel, started as a scenario says."""
    kernel_btf: KernelBtf = SyntheticBtf(functions=tuple(scenario.boot.get("functions", ())))
    if scenario.kernel_types:
        kernel_btf = BtfFile(scenario.kernel_types)
    kernel = ModelKernel(
        profile=profile,
        kernel_btf=kernel_btf,
        hooks=_hooks(scenario.boot.get("post_integrity", "")),
        bpf_keyring_unsealed=bool(scenario.boot.get("bpf_keyring_unsealed")),
    )
    for key in scenario.boot.get("builtin", ()):
        with suppress(KernelError):  # a kernel reports it and goes on (x509_load_certificate_list)
            kernel.keyrings.add_key(KeyringId.BUILTIN, key_pair(key).certificate_der, key)
    return ModelSubject(kernel)


def _hooks(post_integrity: str) -> tuple[Hook, ...]:
    """Return a hook that answers each matched hash with an errno, if there is one."""

    def hook(operation: Operation, _program: ProgramFacts) -> int:
        asked = operation is Operation.BPF_PROG_LOAD_POST_INTEGRITY
        return -getattr(errno, post_integrity) if asked else 0

    return (hook,) if post_integrity else ()
