"""The helpers that a SYSCALL program may call, with the types of their arguments.

Source: ``syscall_prog_func_proto`` in kernel/bpf/syscall.c, ``bpf_tracing_func_proto`` in
kernel/trace/bpf_trace.c and ``bpf_base_func_proto`` in kernel/bpf/helpers.c.

Example:
    >>> PROTOTYPES[Helper.SYS_CLOSE].arguments
    (<Argument.ANYTHING: 'anything'>,)
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from bpfseal.bpf.uapi import Helper


class Argument(Enum):
    """Types of arguments (``enum bpf_arg_type``)."""

    ANYTHING = "anything"
    NUMBER = "number"
    CONTEXT = "context"
    MAP = "map"
    KEY = "key"
    VALUE = "value"
    MEMORY = "memory that is read"
    MEMORY_OUT = "memory that is written"
    MEMORY_OR_NULL = "memory that is read, or null"
    MEMORY_OUT_OR_NULL = "memory that is written, or null"
    SIZE = "size"
    SIZE_OR_ZERO = "size or zero"
    LONG_OUT = "8 bytes that are written"
    FUNCTION = "function of the program"
    STACK_OR_NULL = "stack or null"
    STRING = "string in a read-only map"
    RECORD_SIZE = "size of a record, a constant"
    RECORD = "record of a ring buffer, which is given back"


class Result(Enum):
    """Types of results (``enum bpf_return_type``)."""

    NUMBER = "number"
    MAP_VALUE_OR_NULL = "map value or null"
    RECORD_OR_NULL = "record of a ring buffer or null"
    TASK = "the current task"
    NOTHING = "nothing"


class Prototype(NamedTuple):
    """What a helper takes and gives.

    Attributes:
        arguments: from r1 on.
        result: r0.
        gpl_only: only programs with a GPL-compatible licence may call it.
    """

    arguments: tuple[Argument, ...]
    result: Result = Result.NUMBER
    gpl_only: bool = False


_A = Argument
_COPY: Final = Prototype((_A.MEMORY_OUT, _A.SIZE_OR_ZERO, _A.ANYTHING), gpl_only=True)
_NOTHING: Final = Prototype(())

PROTOTYPES: Final[dict[int, Prototype]] = {
    Helper.MAP_LOOKUP_ELEM: Prototype((_A.MAP, _A.KEY), Result.MAP_VALUE_OR_NULL),
    Helper.MAP_UPDATE_ELEM: Prototype((_A.MAP, _A.KEY, _A.VALUE, _A.ANYTHING)),
    Helper.MAP_DELETE_ELEM: Prototype((_A.MAP, _A.KEY)),
    Helper.PROBE_READ: _COPY,
    Helper.KTIME_GET_NS: _NOTHING,
    Helper.TRACE_PRINTK: Prototype((_A.MEMORY, _A.SIZE), gpl_only=True),
    Helper.GET_PRANDOM_U32: _NOTHING,
    Helper.GET_SMP_PROCESSOR_ID: _NOTHING,
    Helper.GET_CURRENT_PID_TGID: _NOTHING,
    Helper.GET_CURRENT_UID_GID: _NOTHING,
    Helper.GET_CURRENT_COMM: Prototype((_A.MEMORY_OUT, _A.SIZE)),
    Helper.GET_NUMA_NODE_ID: _NOTHING,
    Helper.PROBE_READ_STR: _COPY,
    Helper.GET_CURRENT_CGROUP_ID: _NOTHING,
    Helper.STRTOL: Prototype((_A.MEMORY, _A.SIZE, _A.ANYTHING, _A.LONG_OUT)),
    Helper.STRTOUL: Prototype((_A.MEMORY, _A.SIZE, _A.ANYTHING, _A.LONG_OUT)),
    Helper.PROBE_READ_USER: _COPY,
    Helper.PROBE_READ_KERNEL: _COPY,
    Helper.PROBE_READ_USER_STR: _COPY,
    Helper.PROBE_READ_KERNEL_STR: _COPY,
    Helper.JIFFIES64: _NOTHING,
    Helper.KTIME_GET_BOOT_NS: _NOTHING,
    Helper.COPY_FROM_USER: _COPY._replace(gpl_only=False),
    Helper.RINGBUF_OUTPUT: Prototype((_A.MAP, _A.MEMORY, _A.SIZE_OR_ZERO, _A.ANYTHING)),
    Helper.RINGBUF_RESERVE: Prototype((_A.MAP, _A.RECORD_SIZE, _A.ANYTHING), Result.RECORD_OR_NULL),
    Helper.RINGBUF_SUBMIT: Prototype((_A.RECORD, _A.ANYTHING), Result.NOTHING),
    Helper.RINGBUF_DISCARD: Prototype((_A.RECORD, _A.ANYTHING), Result.NOTHING),
    Helper.RINGBUF_QUERY: Prototype((_A.MAP, _A.ANYTHING)),
    Helper.FOR_EACH_MAP_ELEM: Prototype((_A.MAP, _A.FUNCTION, _A.STACK_OR_NULL, _A.ANYTHING)),
    Helper.LOOP: Prototype((_A.NUMBER, _A.FUNCTION, _A.STACK_OR_NULL, _A.ANYTHING)),
    Helper.STRNCMP: Prototype((_A.MEMORY, _A.SIZE, _A.STRING)),
    Helper.SYS_BPF: Prototype((_A.ANYTHING, _A.MEMORY, _A.SIZE)),
    Helper.BTF_FIND_BY_NAME_KIND: Prototype((_A.MEMORY, _A.SIZE, _A.ANYTHING, _A.ANYTHING)),
    Helper.SYS_CLOSE: Prototype((_A.ANYTHING,)),
    Helper.KALLSYMS_LOOKUP_NAME: Prototype((_A.MEMORY, _A.SIZE_OR_ZERO, _A.ANYTHING, _A.LONG_OUT)),
    Helper.KTIME_GET_TAI_NS: _NOTHING,
    Helper.TAIL_CALL: Prototype((_A.CONTEXT, _A.MAP, _A.ANYTHING), Result.NOTHING),
    Helper.MAP_PUSH_ELEM: Prototype((_A.MAP, _A.VALUE, _A.ANYTHING)),
    Helper.SNPRINTF: Prototype(
        (_A.MEMORY_OUT_OR_NULL, _A.SIZE_OR_ZERO, _A.STRING, _A.MEMORY_OR_NULL, _A.SIZE_OR_ZERO)
    ),
    Helper.GET_CURRENT_TASK: Prototype((), gpl_only=True),
    Helper.GET_CURRENT_TASK_BTF: Prototype((), Result.TASK, gpl_only=True),
}
"""Prototypes of the helpers that the model has, by id."""

NEVER_RUN: Final = frozenset({Helper.TAIL_CALL, Helper.MAP_PUSH_ELEM, Helper.SNPRINTF})
"""Helpers of which the model checks the arguments, and has no more."""

RING_HELPERS: Final = frozenset(
    {Helper.RINGBUF_OUTPUT, Helper.RINGBUF_RESERVE, Helper.RINGBUF_QUERY}
)
"""Helpers that take a ring buffer, and the only ones that do."""

CALLBACKS: Final = frozenset(
    number for number, prototype in PROTOTYPES.items() if Argument.FUNCTION in prototype.arguments
)
"""Helpers that call a function of the program before they return."""

OTHERS: Final = frozenset(
    {
        *(
            22,
            25,
            27,
            37,
            46,
            55,
            67,
            88,
            89,
            93,
            94,
            107,
            108,
            109,
            111,
            117,
            120,
            121,
            123,
        ),
        *(136, 137, 138, 139, 140, 141, 147, 149, 153, 154, 156, 157),
        *(162, 169, 170, 171, 172, 173, 175, 176, 177, 178, 180, 188),
        *(191, 194, 195, 196, 197, 198, 199, 200, 201, 202, 203, 209, 210, 211),
    }
)
"""Helpers that a SYSCALL program may call on Linux 6.18 and later and that the model lacks."""

NEEDS_PERFMON: Final = frozenset(
    {
        *(6, 16, 22, 35, 55, 109, 112, 113, 114, 115, 117, 141, 148, 149),
        *(158, 165, 166, 175, 176, 177, 180, 191),
    }
)
"""Helpers that a process without CAP_PERFMON does not get for SYSCALL programs (measured on Linux
6.18.44)."""
