"""What the verbs that know policies share: reading one, and printing what IPE logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpfseal.cli.console import Console
from bpfseal.cli.inputs import naming, read_argument, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpfseal.kernel.model.ipe.audit import Record
    from bpfseal.kernel.model.ipe.policy import Policy

POLICY_LIMIT: Final = 1 << 20
"""Bytes of the largest policy that is read."""


def read_policy(path: str) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: the kernel does not take it.
        InputError: it cannot be read or is too large.
    """
    from bpfseal.kernel.model.ipe import parse_policy

    with naming(shown(path)):
        return parse_policy(read_argument(path, limit=POLICY_LIMIT))


def record_fields(records: Sequence[Record]) -> list[dict[str, str | int]]:
    """Return audit records as JSON values."""
    return [{"type": int(record.type), "text": record.text} for record in records]


def print_records(records: Sequence[Record], console: Console) -> None:
    """Print audit records."""
    for record in records:
        console.say(f"  audit: type={record.type:d} {record}")
