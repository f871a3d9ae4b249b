"""What /proc tells this process about itself.

Example:
    >>> may_load_programs()  # doctest: +SKIP
    True
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_CAP_SYS_ADMIN: Final = 21
_CAP_BPF: Final = 39
"""Capabilities (include/uapi/linux/capability.h) that let a process load programs of any type."""

_PROC: Final = Path("/proc/self")


def may_load_programs() -> bool:
    """Tell whether this process has CAP_BPF or CAP_SYS_ADMIN."""
    effective = _fields(_PROC / "status").get("CapEff", "0")
    mask = int(effective, 16) if re.fullmatch("[0-9a-fA-F]{1,16}", effective) else 0
    return bool(mask >> _CAP_BPF & 1 or mask >> _CAP_SYS_ADMIN & 1)


def fd_fields(fd: int) -> dict[str, str]:
    """Return what the kernel tells of an open map, program or link, by the name of the field.

    Maps have ``map_id``, ``max_entries``, ``frozen``, programs ``prog_id``, ``prog_tag``
    (kernel/bpf/syscall.c bpf_map_show_fdinfo, bpf_prog_show_fdinfo).
    """
    return _fields(_PROC / "fdinfo" / str(fd))


def _fields(path: Path) -> dict[str, str]:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:  # no Linux, or no /proc
        return {}
    return dict(re.findall(r"^([^:\n]+):\s*(.*)$", text, re.MULTILINE))
