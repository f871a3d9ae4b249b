"""What tracefs and sysfs tell of tracepoints, probes and functions that can be traced.

Example:
    >>> tracepoint_id("sched", "sched_switch")  # doctest: +SKIP
    314
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from bpfseal.errors import CapabilityError, UsageError

_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_EVENT_SOURCES: Final = Path("/sys/bus/event_source/devices")


def tracepoint_id(category: str, name: str) -> int:
    """Return the number of a tracepoint, the `config` of its perf event.

    Raises:
        UsageError: a name that is none.
        CapabilityError: tracefs has no such tracepoint, is not mounted, or gives no number.
    """
    for part in (category, name):
        if not re.fullmatch(r"\w+", part):
            raise UsageError(f"{part!r} is no name of a tracepoint")
    text = _first_text(f"events/{category}/{name}/id").strip()
    if not re.fullmatch("[0-9]{1,10}", text):
        raise CapabilityError(f"tracefs gives {text[:40]!r} as the number of {category}/{name}")
    return int(text)


def traceable_functions(pattern: str) -> Iterator[str]:
    """Yield the kernel functions that a probe can be put on and whose name matches a pattern.

    Raises:
        CapabilityError: tracefs is not mounted.
    """
    seen = set()
    for line in _first_text("available_filter_functions").splitlines():
        name = line.split(" ", 1)[0].split("\t", 1)[0]
        if name not in seen and fnmatchcase(name, pattern):
            seen.add(name)
            yield name


def probe_event(kind: str) -> tuple[int, int]:
    """Return the perf type of ``kprobe`` or ``uprobe``, and the bit of `config` for a return probe.

    Raises:
        CapabilityError: the kernel has no such probes.
    """
    folder = _EVENT_SOURCES / kind
    try:
        number = int((folder / "type").read_text("ascii"))
        place = (folder / "format" / "retprobe").read_text("ascii")
    except (OSError, ValueError):
        raise CapabilityError(f"this kernel has no perf events for {kind}s") from None
    bit = re.fullmatch(r"config:([0-5]?[0-9]|6[0-3])\n?", place)
    if bit is None:
        raise CapabilityError(f"the kernel describes return {kind}s as {place!r}")
    return number, 1 << int(bit[1])


def _first_text(name: str) -> str:
    for folder in _TRACEFS:
        with suppress(OSError):
            return (folder / name).read_text("utf-8", "replace")
    raise CapabilityError(
        f"tracefs has no {name}", hint="mount -t tracefs tracefs /sys/kernel/tracing"
    )
