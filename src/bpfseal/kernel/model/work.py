"""How much work one call to the model may be.

A kernel follows a million insns in a blink (BPF_COMPLEXITY_LIMIT_INSNS), and a program that it runs
may make calls for as long as it likes; the model would take minutes for either. What it verifies
and runs is not trusted, so there is an end to it, in proportion to what user space has given.

Example:
    >>> work = Work()
    >>> work.begin()
    >>> work.spend(PATIENCE)
    >>> work.spend(1)
    Traceback (most recent call last):
    bpfseal.errors.CapabilityError: the model gives up: a kernel would go on
"""

from __future__ import annotations

from typing import Final

from bpfseal.errors import CapabilityError

PATIENCE: Final = 30_000
"""Units of one call, and one more for each byte that was given. A unit is an insn that the verifier
looks at; loaders of real objects need one and a half for each of their insns (8 bytes)."""

CALL: Final = 20
"""Units of a call that a running program makes."""

BYTES: Final = 8
"""Bytes that a call of a program may hand over for a unit."""

ROOM: Final = 64 << 20
"""Bytes of memory for the values of maps, and `ROOM_FACTOR` more for each byte that was given."""

ROOM_FACTOR: Final = 8


class Work:
    """The work that the current call of user space may still be, and the room that is left.

    Attributes:
        left: units of work.
        taken: bytes that the values of maps take.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        self._given = 0
        self._patience = patience
        self.left = patience
        self.taken = 0

    def give(self, size: int) -> None:
        """Note that user space has handed over so many bytes."""
        self._given += size

    def begin(self) -> None:
        """Begin a call of user space."""
        self.left = self._patience + self._given

    def use(self, units: int) -> None:
        """Count work that was done already."""
        self.left -= units

    def spend(self, units: int) -> None:
        """Count work, and give up if it is too much.

        Raises:
            CapabilityError: the model gives up.
        """
        self.left -= units
        if self.left < 0:
            raise self.exhausted()

    @staticmethod
    def exhausted() -> CapabilityError:
        """Return the error with which the model gives up."""
        return CapabilityError("the model gives up: a kernel would go on")

    def take(self, size: int) -> bool:
        """Take room for the values of a map; return whether there was enough."""
        if self.taken + size > ROOM + ROOM_FACTOR * self._given:
            return False
        self.taken += size
        return True
