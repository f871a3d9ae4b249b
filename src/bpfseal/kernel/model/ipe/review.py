"""What is wrong with a policy that parses: it lets through, or locks out, what nobody meant.

The events that a policy can be asked about are few, so a review asks it about all of them: a load
from user space is UNSIGNED, or OK with a keyring; a load by a running loader is UNSIGNED with
``bpf_kernel=TRUE``; after the match of the hash the verdict is METADATA_VERIFIED.

Example:
    >>> [finding.name for finding in review(policy)]
    ['unsigned-loads-allowed']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from bpfseal.kernel.model.ipe.evaluate import Decision, Event, Scope, evaluate
from bpfseal.kernel.model.ipe.policy import ALLOW_INNER_LOADS, IpeOperation, Policy, Rule
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

_LOAD: Final = IpeOperation.BPF_PROG_LOAD
_POST: Final = IpeOperation.BPF_PROG_LOAD_POST_INTEGRITY
_SIGNERS: Final = tuple(kind for kind in KeyringKind if kind is not KeyringKind.NONE)

DENY_UNSIGNED: Final = "op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY"
"""The rule that keeps out what has no signature."""

UNSIGNED_LOAD: Final = Event.bpf(_LOAD, Verdict.UNSIGNED)
"""User space loads a program without a signature."""

INNER_LOAD: Final = Event.bpf(_LOAD, Verdict.UNSIGNED, is_kernel=True)
"""A running loader loads one of the programs that it installs."""


def signed_load(keyring: KeyringKind) -> Event:
    """Return the load of a loader whose signature verifies."""
    return Event.bpf(_LOAD, Verdict.OK, keyring)


def post_integrity(keyring: KeyringKind) -> Event:
    """Return the step after its metadata's hash matches."""
    return Event.bpf(_POST, Verdict.METADATA_VERIFIED, keyring)


EVENTS: Final = (
    UNSIGNED_LOAD,
    INNER_LOAD,
    *map(signed_load, _SIGNERS),
    *map(post_integrity, _SIGNERS),
)
"""Every event about a BPF program that there can be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a policy.

    Attributes:
        name: a short name that does not change.
        message: what is wrong.
        hint: what to do about it.
        line: where in the policy, from 1; 0 if it is about all of it.
    """

    name: str
    message: str
    hint: str
    line: int = 0


def review(policy: Policy) -> tuple[Finding, ...]:
    """Return what is wrong with a policy."""
    return (
        *_unsigned_loads(policy),
        *_locked_out_loaders(policy),
        *_forgotten_operation(policy),
        *_idle_rules(policy),
    )


def _unsigned_loads(policy: Policy) -> Iterator[Finding]:
    """A program without a signature never comes to the post-integrity operation."""
    decision = evaluate(policy, UNSIGNED_LOAD)
    if decision.is_denied or not _gates_post_integrity(policy):
        return
    yield Finding(
        "unsigned-loads-allowed",
        f"{_POST.value} is gated, but every unsigned load is let through: a program without a "
        f"signature is never asked about there (decided by {_place(decision)})",
        f"deny it where it is asked: {ALLOW_INNER_LOADS}, then {DENY_UNSIGNED}",
        _line(decision),
    )


def _gates_post_integrity(policy: Policy) -> bool:
    """Tell whether a policy denies there, or allows there under a condition."""
    conditional = any(rule.properties for rule in policy.rules_for(_POST))
    return conditional or any(
        evaluate(policy, post_integrity(keyring)).is_denied for keyring in _SIGNERS
    )


def _locked_out_loaders(policy: Policy) -> Iterator[Finding]:
    """The programs that a loader installs are unsigned loads of their own, from the kernel."""
    decision = evaluate(policy, INNER_LOAD)
    passes = any(
        not evaluate(policy, signed_load(keyring)).is_denied
        and not evaluate(policy, post_integrity(keyring)).is_denied
        for keyring in _SIGNERS
    )
    if not decision.is_denied or not passes:
        return
    where = f"before line {_line(decision)}" if decision.rule else "as a rule"
    yield Finding(
        "loaders-locked-out",
        "verified loaders run and return -EACCES: the programs that they install are UNSIGNED "
        f"loads from the kernel, and denied (decided by {_place(decision)})",
        f"put {where}: {ALLOW_INNER_LOADS}",
        _line(decision),
    )


def _forgotten_operation(policy: Policy) -> Iterator[Finding]:
    """A global default of DENY is meant for what was not thought of, and that denies here."""
    admitted = [k for k in _SIGNERS if not evaluate(policy, signed_load(k)).is_denied]
    decisions = [evaluate(policy, post_integrity(keyring)) for keyring in admitted]
    if decisions and all(each.is_denied and each.scope is Scope.GLOBAL for each in decisions):
        yield Finding(
            "post-integrity-forgotten",
            "signed loaders are let in, and denied once their metadata was found good: no line "
            f"is about {_POST.value}, and the global default is DENY",
            f"add: op={_POST.value} action=ALLOW",
        )


def _idle_rules(policy: Policy) -> Iterator[Finding]:
    """A rule about BPF programs that decides about no event has another effect than meant."""
    for rule in policy.rules:
        if not rule.operation.is_bpf:
            continue
        matching = [
            event
            for event in EVENTS
            if event.operation is rule.operation and all(map(event.has, rule.properties))
        ]
        decisions = [evaluate(policy, event) for event in matching]
        if not matching:
            yield _never_matches(rule)
        elif all(decision.rule is not rule for decision in decisions) and _differs(rule, decisions):
            yield _never_decides(rule, decisions)


def _differs(rule: Rule, decisions: Iterable[Decision]) -> bool:
    """Tell whether a rule says, under some condition, something else than those before it.

    A last rule without properties is a way to write a default.
    """
    return bool(rule.properties) and any(each.action is not rule.action for each in decisions)


def _never_matches(rule: Rule) -> Finding:
    verdicts = "METADATA_VERIFIED" if rule.operation is _POST else "UNSIGNED or OK"
    return Finding(
        "rule-never-matches",
        f"{rule}: no event is like that",
        f"at {rule.operation.value} bpf_signature is {verdicts}; only a signed load has a "
        "bpf_keyring, and only an unsigned one is bpf_kernel=TRUE",
        rule.line,
    )


def _never_decides(rule: Rule, decisions: Iterable[Decision]) -> Finding:
    lines = sorted({_line(decision) for decision in decisions})
    return Finding(
        "rule-never-decides",
        f"{rule}: the first rule that matches decides, and that is always an earlier one "
        f"(line {', '.join(map(str, lines))})",
        "move it up, or leave it out",
        rule.line,
    )


def _line(decision: Decision) -> int:
    return decision.rule.line if decision.rule else 0


def _place(decision: Decision) -> str:
    return f"line {decision.rule.line}" if decision.rule else f"{decision}"
