"""How many CPUs this machine may ever have: what per-CPU maps have a value for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bpfseal.errors import CapabilityError

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")


def possible_cpus() -> int:
    """Return how many CPUs are possible (``num_possible_cpus`` in the kernel).

    Raises:
        CapabilityError: sysfs cannot be read here.
    """
    try:
        text = _POSSIBLE.read_text().strip()
    except OSError as error:
        raise CapabilityError(f"cannot be read: {error.strerror}", where=str(_POSSIBLE)) from None
    ranges = (part.partition("-") for part in text.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
