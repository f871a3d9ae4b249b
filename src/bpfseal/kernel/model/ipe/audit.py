"""The records that IPE leaves in the audit log.

Source: security/ipe/audit.c; of a decision about a BPF program there are no path, device and
inode, because there is no file.

Example:
    >>> print(access_record(event, decision, enforce=True, process=Process()))
    ipe_op=BPF_PROG_LOAD ipe_hook=BPF_PROG_LOAD enforcing=1 pid=1 comm="bpfseal" rule="..."
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.ipe.evaluate import Decision, Event
from bpfseal.kernel.model.ipe.policy import Policy, untrusted_string

UNSET_ID: Final = 0xFFFFFFFF
"""The login user and session of a process that nobody logged in to (AUDIT_UID_UNSET)."""

_UNSIGNED_MESSAGE: Final = b""
"""The PKCS#7 message of a policy that came without one, as the one that is built into a kernel;
its digest stands in the records."""


class RecordType(IntEnum):
    """Numbers of audit records (include/uapi/linux/audit.h)."""

    MAC_STATUS = 1404
    IPE_ACCESS = 1420
    IPE_CONFIG_CHANGE = 1421
    IPE_POLICY_LOAD = 1422


@dataclass(frozen=True, slots=True)
class Record:
    """One record; its text is what follows ``audit(TIME:SERIAL):`` in the log."""

    type: RecordType
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Process:
    """The process that records name.

    Attributes:
        pid: its id.
        comm: its name, at most 15 bytes.
        login_uid: the user who logged in.
        session: the login session.
    """

    pid: int = 1
    comm: str = "bpfseal"
    login_uid: int = UNSET_ID
    session: int = UNSET_ID

    @property
    def login(self) -> str:
        """How records name the login."""
        return f"auid={self.login_uid} ses={self.session}"


def access_record(event: Event, decision: Decision, *, enforce: bool, process: Process) -> Record:
    """Return the record of a decision (``ipe_audit_match``)."""
    file = "" if event.operation.is_bpf else " path=? dev=? ino=?"
    return Record(
        RecordType.IPE_ACCESS,
        f"ipe_op={event.operation.value} ipe_hook={event.hook} enforcing={enforce:d} "
        f'pid={process.pid} comm={untrusted_string(process.comm)}{file} rule="{decision}"',
    )


def load_record(loaded: Policy | KernelError, process: Process) -> Record:
    """Return the record of a policy that was loaded, or not (``ipe_audit_policy_load``)."""
    if isinstance(loaded, KernelError):
        what = "policy_name=? policy_version=? policy_digest=?"
        result = f"res=0 errno=-{loaded.errno}"
    else:
        what = (
            f'policy_name="{loaded.name}" policy_version={loaded.version} policy_digest={_digest()}'
        )
        result = "res=1 errno=0"
    return Record(RecordType.IPE_POLICY_LOAD, f"{what} {process.login} lsm=ipe {result}")


def activation_record(old: Policy | None, new: Policy, process: Process) -> Record:
    """Return the record of a policy that became active (``ipe_audit_policy_activation``)."""
    if old is None:
        before = "old_active_pol_name=? old_active_pol_version=? old_policy_digest=?"
    else:
        before = (
            f'old_active_pol_name="{old.name}" old_active_pol_version={old.version} '
            f"old_policy_digest={_digest()}"
        )
    after = (
        f'new_active_pol_name="{new.name}" new_active_pol_version={new.version} '
        f"new_policy_digest={_digest()}"
    )
    return Record(RecordType.IPE_CONFIG_CHANGE, f"{before} {after} {process.login} lsm=ipe res=1")


def enforce_record(new: bool, old: bool, process: Process) -> Record:
    """Return the record of a change between enforcing and permissive (``ipe_audit_enforce``)."""
    return Record(
        RecordType.MAC_STATUS,
        f"enforcing={new:d} old_enforcing={old:d} {process.login} "
        "enabled=1 old-enabled=1 lsm=ipe res=1",
    )


def _digest() -> str:
    return f"sha256:{hashlib.sha256(_UNSIGNED_MESSAGE).hexdigest().upper()}"
