r"""`Ipe`: the LSM with its policies, its switches and its log. It is a hook of the model.

What on a real machine are files below ``/sys/kernel/security/ipe`` are methods here. The kernel
takes policies in signed messages; the model takes their text, as verified.

Example:
    >>> ipe = Ipe()
    >>> ipe.new_policy(b"policy_name=p policy_version=1.0.0\nDEFAULT action=DENY")
    >>> ipe.activate("p")
    >>> ModelKernel(hooks=[ipe]).prog_load(request)
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EACCES: a hook refused demo
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EACCES, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, EPERM, ESTALE
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.ipe.audit import (
    Process,
    Record,
    access_record,
    activation_record,
    enforce_record,
    load_record,
)
from bpfseal.kernel.model.ipe.evaluate import Decision, Event, evaluate
from bpfseal.kernel.model.ipe.parser import parse_policy
from bpfseal.kernel.model.ipe.policy import IpeOperation, Policy
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.refusal import refusal

NAME_MAX: Final = 255
"""Bytes of the longest name of a directory (include/uapi/linux/limits.h)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question that the hook was asked, and the answer.

    Attributes:
        program: the name of the program.
        event: what was asked.
        decision: what the policy said.
        answer: what the hook returned: 0, or a negative errno.
    """

    program: str
    event: Event
    decision: Decision
    answer: int


class Ipe:
    """IPE in a kernel; calling it is asking its hooks.

    Args:
        enforce: a denial refuses; otherwise (permissive) it is only logged.
        success_audit: log what is allowed, too.
        process: the process that records name.

    Attributes:
        success_audit: log what is allowed, too (``success_audit``).
        records: the audit log.
        questions: everything that was asked while a policy was active.
    """

    def __init__(
        self,
        *,
        enforce: bool = True,
        success_audit: bool = False,
        process: Process | None = None,
    ) -> None:
        self._enforce = enforce
        self._process = process or Process()
        self._policies: dict[str, Policy] = {}
        self._active: str | None = None
        self.success_audit = success_audit
        self.records: list[Record] = []
        self.questions: list[Question] = []

    @classmethod
    def booted(cls, policy: Policy, *, enforce: bool = True, success_audit: bool = False) -> Ipe:
        """Return IPE with a policy that is built into the kernel: active, and nothing logged.

        Source: Documentation/admin-guide/LSM/ipe.rst, "boot policy".
        """
        ipe = cls(enforce=enforce, success_audit=success_audit)
        ipe._policies[policy.name] = policy
        ipe._active = policy.name
        return ipe

    @property
    def enforce(self) -> bool:
        """A denial refuses (``enforce``); a change of it is logged."""
        return self._enforce

    @enforce.setter
    def enforce(self, value: bool) -> None:
        if value != self._enforce:
            self.records.append(enforce_record(value, self._enforce, self._process))
        self._enforce = value

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that are loaded, in order (``policies/``)."""
        return tuple(self._policies.values())

    @property
    def active(self) -> Policy | None:
        """The policy that decides; without one everything is allowed."""
        return None if self._active is None else self._policies[self._active]

    def __call__(self, operation: Operation, program: ProgramFacts) -> int:
        """Answer a hook: 0, or -EACCES."""
        event = Event.bpf(
            IpeOperation(operation.value),
            program.verdict,
            program.keyring,
            is_kernel=program.is_kernel,
        )
        policy = self.active
        if policy is None:
            return 0
        decision = evaluate(policy, event)
        if decision.is_denied or self.success_audit:
            record = access_record(event, decision, enforce=self._enforce, process=self._process)
            self.records.append(record)
        answer = -EACCES if decision.is_denied and self._enforce else 0
        self.questions.append(Question(program.name, event, decision, answer))
        return answer

    def new_policy(self, text: bytes) -> Policy:
        """Load a policy; it is not active yet (``new_policy``).

        Raises:
            KernelError: what `parse_policy` refuses, EEXIST for a name that is there already,
                EACCES and ENAMETOOLONG for one that no directory can have.
        """
        try:
            policy = parse_policy(text)
            self._check_directory(policy.name)
        except KernelError as error:
            self.records.append(load_record(error, self._process))
            raise
        self._policies[policy.name] = policy
        self.records.append(load_record(policy, self._process))
        return policy

    def update_policy(self, name: str, text: bytes) -> Policy:
        """Replace a policy by a newer one of its name (``policies/NAME/update``).

        If it is the active one, the new one is active at once.

        Raises:
            KernelError: ENOENT for no such policy, what `parse_policy` refuses, EINVAL for
                another name, ESTALE for a version that is not newer.
        """
        source = "security/ipe/policy.c ipe_update_policy"
        try:
            old = self._known(name, source)
            policy = parse_policy(text)
            if policy.name != name:
                raise refusal(EINVAL, source, f"the policy is named {policy.name}, not {name}")
            if old.version >= policy.version:
                message = f"version {policy.version} is not newer than {old.version}"
                raise refusal(ESTALE, source, message)
        except KernelError as error:
            self.records.append(load_record(error, self._process))
            raise
        self._policies[name] = policy
        self.records.append(load_record(policy, self._process))
        if self._active == name:
            self.records.append(activation_record(old, policy, self._process))
        return policy

    def activate(self, name: str) -> None:
        """Make a policy the one that decides (``policies/NAME/active``).

        Raises:
            KernelError: ENOENT for no such policy, EINVAL for one whose version is older than
                that of the active one, whatever the names are.
        """
        source = "security/ipe/policy.c ipe_set_active_pol"
        policy, active = self._known(name, source), self.active
        if active is policy:
            return
        if active is not None and active.version > policy.version:
            message = f"version {policy.version} is older than {active.version}, which is active"
            raise refusal(EINVAL, source, message)
        self._active = name
        self.records.append(activation_record(active, policy, self._process))

    def delete_policy(self, name: str) -> None:
        """Remove a policy (``policies/NAME/delete``).

        Raises:
            KernelError: ENOENT for no such policy, EPERM for the active one.
        """
        source = "security/ipe/policy_fs.c delete_policy"
        self._known(name, source)
        if name == self._active:
            raise refusal(EPERM, source, "the policy is active")
        del self._policies[name]

    def _known(self, name: str, source: str) -> Policy:
        if name not in self._policies:
            raise refusal(ENOENT, source, f"no policy is named {name}")
        return self._policies[name]

    def _check_directory(self, name: str) -> None:
        """Refuse what can be no new directory in ``policies/`` (``ipe_new_policyfs_node``)."""
        source = "security/ipe/policy_fs.c ipe_new_policyfs_node"
        if "/" in name or name in (".", ".."):
            raise refusal(EACCES, f"{source}, fs/namei.c lookup_noperm_common", f"named {name}")
        if len(name.encode("utf-8", "surrogateescape")) > NAME_MAX:
            raise refusal(ENAMETOOLONG, f"{source}, fs/libfs.c simple_lookup", "the name is long")
        if name in self._policies:
            raise refusal(EEXIST, source, f"a policy is named {name} already")
