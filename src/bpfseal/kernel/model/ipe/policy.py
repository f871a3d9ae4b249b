"""The words of the policy language, and a policy that was parsed.

Example:
    >>> str(Rule(IpeOperation.BPF_PROG_LOAD, (Property("bpf_kernel", "TRUE"),), Action.ALLOW, 2))
    'op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from bpfseal.kernel.model.verdict import KeyringKind, Verdict


class IpeOperation(Enum):
    """What a rule is about; the value is the word after ``op=``.

    Source: security/ipe/policy_parser.c ``operation_tokens``, with the two of the series.
    """

    EXECUTE = "EXECUTE"
    FIRMWARE = "FIRMWARE"
    KMODULE = "KMODULE"
    KEXEC_IMAGE = "KEXEC_IMAGE"
    KEXEC_INITRAMFS = "KEXEC_INITRAMFS"
    POLICY = "POLICY"
    X509_CERT = "X509_CERT"
    BPF_PROG_LOAD = "BPF_PROG_LOAD"
    BPF_PROG_LOAD_POST_INTEGRITY = "BPF_PROG_LOAD_POST_INTEGRITY"

    @property
    def is_bpf(self) -> bool:
        """It is about a BPF program, not about a file."""
        return self.value.startswith("BPF_")


class Action(Enum):
    """What a rule says; the value is the word after ``action=``."""

    ALLOW = "ALLOW"
    DENY = "DENY"


_SWITCH: Final = ("FALSE", "TRUE")

PROPERTIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "boot_verified": _SWITCH,
        "dmverity_roothash": (),
        "dmverity_signature": _SWITCH,
        "fsverity_digest": (),
        "fsverity_signature": _SWITCH,
        "bpf_signature": tuple(verdict.name for verdict in Verdict),
        "bpf_keyring": tuple(kind.name for kind in KeyringKind if kind is not KeyringKind.NONE),
        "bpf_kernel": _SWITCH,
    }
)
"""The properties and the values that each can have; none are listed for those that take a digest.

Source: security/ipe/policy_parser.c ``property_tokens``, with those of the series.
"""

ALLOW_INNER_LOADS: Final = "op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW"
"""The rule that a policy, which denies unsigned loads, needs before: what a loader installs are
unsigned loads from inside the kernel, and without it verified loaders return -EACCES."""


class Version(NamedTuple):
    """The version of a policy: three numbers of 16 bits, compared from left to right."""

    major: int
    minor: int
    revision: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}"


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest in a policy, ``ALGORITHM:HEX``; its text is as the kernel's audit has it.

    Source: security/ipe/digest.c ``ipe_digest_audit``.
    """

    algorithm: str
    value: bytes

    def __str__(self) -> str:
        return f"{untrusted_string(self.algorithm)}:{self.value.hex().upper()}"


@dataclass(frozen=True, slots=True)
class Property:
    """A condition of a rule: the name, and a word of `PROPERTIES` or a digest."""

    name: str
    value: str | Digest

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule; its text is the one that audit records show.

    Attributes:
        operation: what it is about.
        properties: all of them must match.
        action: what it says then.
        line: where it stands in the policy, from 1.
    """

    operation: IpeOperation
    properties: tuple[Property, ...]
    action: Action
    line: int

    def __str__(self) -> str:
        return " ".join(
            (
                f"op={self.operation.value}",
                *map(str, self.properties),
                f"action={self.action.value}",
            )
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was parsed.

    Attributes:
        name: ``policy_name``, which may hold any byte but white space and ``#``.
        version: ``policy_version``.
        rules: the rules, in order.
        defaults: the defaults of single operations.
        default: the global default, if there is one; otherwise every operation has its own.
        text: what was parsed.
    """

    name: str
    version: Version
    rules: tuple[Rule, ...]
    defaults: Mapping[IpeOperation, Action]
    default: Action | None
    text: bytes = b""

    def rules_for(self, operation: IpeOperation) -> tuple[Rule, ...]:
        """Return the rules about an operation, in order."""
        return tuple(rule for rule in self.rules if rule.operation is operation)


def untrusted_string(text: str) -> str:
    """Return a text as an audit record shows one that anybody could have chosen.

    In quotes, or in hex without quotes if it holds a quote, a space, or anything but printable
    ASCII.

    Source: kernel/audit.c ``audit_log_n_untrustedstring``.
    """
    data = text.encode("utf-8", "surrogateescape")
    if any(byte == ord('"') or not 0x21 <= byte <= 0x7E for byte in data):
        return data.hex().upper()
    return f'"{text}"'
