"""What a policy says of an event: the first rule that matches, else a default.

Source: security/ipe/eval.c ``ipe_evaluate_event`` and ``evaluate_property``.

Example:
    >>> event = Event.bpf(IpeOperation.BPF_PROG_LOAD, Verdict.UNSIGNED)
    >>> str(evaluate(policy, event))
    'op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY'
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bpfseal.kernel.model.ipe.policy import (
    Action,
    Digest,
    IpeOperation,
    Policy,
    Property,
    Rule,
)
from bpfseal.kernel.model.verdict import KeyringKind, Verdict


@dataclass(frozen=True, slots=True)
class Event:
    """What IPE is asked about (``struct ipe_eval_ctx``).

    What an event has no notion of is zero, as in the kernel: for a BPF program the file's
    properties are FALSE and no digest matches; for a file the verdict is UNSIGNED.

    Attributes:
        operation: the operation.
        hook: the name of the LSM hook.
        verdict: the verdict on a BPF program.
        keyring: the keyring of its signature.
        is_kernel: it is loaded from inside the kernel.
        boot_verified: the file is of the initramfs.
        dmverity_roothash: the root hash of the file's device.
        dmverity_signature: that root hash is signed.
        fsverity_digest: the file's fs-verity digest.
        fsverity_signature: that digest is signed.
    """

    operation: IpeOperation
    hook: str
    verdict: Verdict = Verdict.UNSIGNED
    keyring: KeyringKind = KeyringKind.NONE
    is_kernel: bool = False
    boot_verified: bool = False
    dmverity_roothash: Digest | None = None
    dmverity_signature: bool = False
    fsverity_digest: Digest | None = None
    fsverity_signature: bool = False

    @classmethod
    def bpf(
        cls,
        operation: IpeOperation,
        verdict: Verdict,
        keyring: KeyringKind = KeyringKind.NONE,
        *,
        is_kernel: bool = False,
    ) -> Event:
        """Return the event of a BPF program; its hook is named as its operation."""
        return cls(operation, operation.value, verdict, keyring, is_kernel)

    def has(self, asked: Property) -> bool:
        """Tell whether a property is as a rule asks for; all compare by equality."""
        match asked.name:
            case "bpf_signature":
                return self.verdict.name == asked.value
            case "bpf_keyring":
                return self.keyring.name == asked.value
            case "bpf_kernel":
                return self.is_kernel == (asked.value == "TRUE")
            case "dmverity_roothash":
                return self.dmverity_roothash == asked.value
            case "fsverity_digest":
                return self.fsverity_digest == asked.value
            case "boot_verified":
                return self.boot_verified == (asked.value == "TRUE")
            case "dmverity_signature":
                return self.dmverity_signature == (asked.value == "TRUE")
            case _:
                return self.fsverity_signature == (asked.value == "TRUE")

    def __str__(self) -> str:
        """The properties that a policy about BPF programs can ask for."""
        signer = f" bpf_keyring={self.keyring.name}" if self.keyring else ""
        kernel = "TRUE" if self.is_kernel else "FALSE"
        return f"bpf_signature={self.verdict.name}{signer} bpf_kernel={kernel}"


class Scope(Enum):
    """What decided (``enum ipe_match``)."""

    RULE = "rule"
    OPERATION = "default of the operation"
    GLOBAL = "global default"


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy says of an event; its text is the rule that audit records show.

    Attributes:
        action: what it says.
        scope: what decided.
        operation: the operation of the event.
        rule: the rule that decided, if it was one.
    """

    action: Action
    scope: Scope
    operation: IpeOperation
    rule: Rule | None = None

    @property
    def is_denied(self) -> bool:
        """It says no."""
        return self.action is Action.DENY

    def __str__(self) -> str:
        if self.rule is not None:
            return str(self.rule)
        operation = f"op={self.operation.value} " if self.scope is Scope.OPERATION else ""
        return f"DEFAULT {operation}action={self.action.value}"


def evaluate(policy: Policy, event: Event) -> Decision:
    """Return what a policy says of an event."""
    operation = event.operation
    for rule in policy.rules:
        if rule.operation is operation and all(map(event.has, rule.properties)):
            return Decision(rule.action, Scope.RULE, operation, rule)
    # A policy without a global default has one for every operation, else it does not parse.
    if policy.default is None or operation in policy.defaults:
        return Decision(policy.defaults[operation], Scope.OPERATION, operation)
    return Decision(policy.default, Scope.GLOBAL, operation)
