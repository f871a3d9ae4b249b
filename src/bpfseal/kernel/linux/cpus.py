"""How many CPUs this machine may ever have: what per-CPU maps have a value for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from bpfseal.errors import CapabilityError

_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")

_LIST: Final = re.compile(r"[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*")
"""Numbers and ranges (Documentation/admin-guide/cputopology.rst)."""


def possible_cpus() -> int:
    """Return how many CPUs are possible (``num_possible_cpus`` in the kernel).

    Raises:
        CapabilityError: sysfs cannot be read here, or says something else.
    """
    try:
        text = _POSSIBLE.read_text("ascii", "replace").strip()
    except OSError as error:
        raise CapabilityError(f"cannot be read: {error.strerror}", where=str(_POSSIBLE)) from None
    if not _LIST.fullmatch(text):
        raise CapabilityError(f"{text[:40]!r} is no list of CPUs", where=str(_POSSIBLE))
    ranges = (part.partition("-") for part in text.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)
