"""Licences, and what only programs with a GPL-compatible one may call.

Source: include/linux/license.h; ``gpl_only`` of the helpers' prototypes, in the files that
`GPL_ONLY` names. Measured on 6.18.15 for all program types that load without such a licence.

Example:
    >>> is_gpl_compatible("Dual BSD/GPL")
    True
    >>> is_gpl_only(166, ProgType.SYSCALL)
    False
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.kernel.model.analysis.helper_table import PROTOTYPES

GPL_COMPATIBLE: Final = frozenset(
    {
        "GPL",
        "GPL v2",
        "GPL and additional rights",
        "Dual BSD/GPL",
        "Dual MIT/GPL",
        "Dual MPL/GPL",
    }
)
"""Licences that count as compatible with the GPL."""

GPL_ONLY: Final = frozenset(
    {
        *(number for number, prototype in PROTOTYPES.items() if prototype.gpl_only),
        # kernel/trace/bpf_trace.c
        *(22, 25, 55, 56, 119, 176),  # perf events and branch records
        *(35, 158, 173, 175),  # the current task, its registers, the traced function
        *(36, 58),  # changes to user memory and to the return value of a function
        *(126, 127, 150, 177),  # text, also that of iterators
        # kernel/bpf/helpers.c
        *(165, 191),  # formatted text, another task's memory
        *(169, 170, 171, 172),  # timers
        # kernel/bpf/stackmap.c
        *(27, 67),
        # net/core/filter.c
        *(111, 121),  # packets as perf events
        *(69, 163),  # the routing table, the MTU
        *(100, 110, 204, 205, 206, 207),  # SYN cookies
        # drivers/media/rc/bpf-lirc.c
        *(77, 78, 92),
    }
)
"""Ids of the helpers that only programs with such a licence may call."""

_GET_STACKID: Final = 27
_GET_FUNC_IP: Final = 173
_MULTI: Final = frozenset(
    {
        AttachType.TRACE_KPROBE_MULTI,
        AttachType.TRACE_KPROBE_SESSION,
        AttachType.TRACE_UPROBE_MULTI,
        AttachType.TRACE_UPROBE_SESSION,
    }
)
_FREE: Final = MappingProxyType(
    {
        (_GET_STACKID, ProgType.PERF_EVENT): frozenset(AttachType),
        (_GET_FUNC_IP, ProgType.KPROBE): _MULTI,
    }
)
"""Program types whose own prototype of a helper is for all, with these attach types
(``bpf_get_stackid_proto_pe``, ``bpf_get_func_ip_proto_kprobe_multi`` and ``_uprobe_multi``)."""


def is_gpl_compatible(licence: str) -> bool:
    """Whether a licence is compatible with the GPL, as the kernel reads it."""
    return licence in GPL_COMPATIBLE


def is_gpl_only(helper: int, program_type: ProgType, attach_type: int = 0) -> bool:
    """Whether a program needs such a licence for a call of a helper.

    Args:
        helper: the id of the helper.
        program_type: the type of the program.
        attach_type: the attach type that it is loaded for.
    """
    return helper in GPL_ONLY and attach_type not in _FREE.get((helper, program_type), ())
