"""Programs that use ring buffers and strings, with what a verifier says and what they return.

Errnos, texts and results are those of Linux 6.18.44; `test_rings` asks the running kernel too. The
maps are those of `MAPS`, by their index in the fd array; the one named ``text`` is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EACCES, EAGAIN, EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    jmp_imm,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.kernel.protocol import MapCreate

from .refusals import DW, END, W, X

TEXT: Final = b"hello\0xxno end"
RING, ARRAY, FROZEN = range(3)

MAPS: Final = (
    MapCreate(MapType.RINGBUF, "ring", 0, 0, 4096),
    MapCreate(MapType.ARRAY, "array", 4, 8, 1, flags=MapFlag.RDONLY_PROG),
    MapCreate(MapType.ARRAY, "text", 4, len(TEXT), 1, flags=MapFlag.RDONLY_PROG),
)


class Case(NamedTuple):
    """A program and the answer; `result` is what a run of an accepted one returns."""

    insns: Sequence[Insn]
    errno: int = 0
    reason: str = ""
    result: int = 0


def _map(index: int) -> Sequence[Insn]:
    return ld_imm64(1, op.PSEUDO_MAP_IDX, index)


def _reserve(size: int, index: int = RING) -> Sequence[Insn]:
    return (
        *_map(index), mov64_imm(2, size), mov64_imm(3, 0), call_helper(Helper.RINGBUF_RESERVE),
    )  # fmt: skip


def _record(*use: Insn) -> Sequence[Insn]:
    """Reserve 16 bytes and do something with r6, the record, where there is one."""
    return (
        *_reserve(16), mov64_reg(6, 0), jmp_imm(op.JEQ, 6, 0, len(use)), *use, *END,
    )  # fmt: skip


def _give(helper: Helper) -> Sequence[Insn]:
    return mov64_reg(1, 6), mov64_imm(2, 0), call_helper(helper)


def _query(question: int) -> Sequence[Insn]:
    return *_map(RING), mov64_imm(2, question), call_helper(Helper.RINGBUF_QUERY)


SUBMIT = tuple(_give(Helper.RINGBUF_SUBMIT))
DISCARD = tuple(_give(Helper.RINGBUF_DISCARD))
FILL = (mov64_imm(8, 7), stx_mem(DW, 6, 8, 0), stx_mem(DW, 6, 8, 8))


def _output(size: int, flags: int = 0) -> Sequence[Insn]:
    return (
        st_mem(DW, 10, -8, 1), *_map(RING), mov64_reg(2, 10), alu64_imm(op.ADD, 2, -8),
        mov64_imm(3, size), mov64_imm(4, flags), call_helper(Helper.RINGBUF_OUTPUT),
    )  # fmt: skip


def _compare(text: bytes, size: int, at: int = 0, index: int = FROZEN) -> Sequence[Insn]:
    """Compare bytes on the stack with those in a map."""
    word = int.from_bytes(text.ljust(8, b"\0"), "little")
    return (
        *ld_imm64(1, 0, word, word >> 32), stx_mem(DW, 10, 1, -8), mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -8), mov64_imm(2, size),
        *ld_imm64(3, op.PSEUDO_MAP_IDX_VALUE, index, at), call_helper(Helper.STRNCMP), X,
    )  # fmt: skip


# fmt: off
CASES: Final[dict[str, Case]] = {
    "a record is submitted": Case(_record(*FILL, *SUBMIT)),
    "a record is discarded": Case(_record(*DISCARD)),
    "a submitted record counts with its header": Case(
        (*_record(*FILL, *SUBMIT)[:-2], *_query(0), X), result=24),
    "the size of the ring": Case((*_query(1), X), result=4096),
    "nothing was read": Case((*_query(2), X), result=0),
    "no such question": Case((*_query(9), X), result=0),
    "a record larger than the ring is null": Case((*_reserve(4096), mov64_reg(6, 0),
        jmp_imm(op.JEQ, 6, 0, 4), *DISCARD, mov64_imm(7, 0), mov64_imm(0, 5), X), result=5),
    "bytes are written out": Case((*_output(8), X)),
    "no bytes are written out": Case((*_output(0), X)),
    "unknown flags": Case((*_output(8, 4), X), result=-EINVAL),
    "a full ring": Case(
        (mov64_imm(7, 0), *_output(8), alu64_imm(op.ADD, 7, 1),
         jmp_imm(op.JNE, 7, 300, -len(_output(8)) - 2), X), result=-EAGAIN),
    "a record that is kept": Case((*_reserve(16), *END), EINVAL,
        "BPF_EXIT instruction in main prog would lead to reference leak"),
    "a record that is kept where it is one": Case(_record(mov64_imm(7, 0)), EINVAL,
        "BPF_EXIT instruction in main prog would lead to reference leak"),
    "a record that may be null": Case((*_reserve(16), st_mem(W, 0, 0, 1), *END), EACCES,
        "R0 invalid mem access 'ringbuf_mem_or_null'"),
    "a record given back that may be null": Case(
        (*_reserve(16), mov64_reg(6, 0), *SUBMIT, *END), EACCES,
        "R1 type=ringbuf_mem_or_null expected=ringbuf_mem"),
    "a record given back twice": Case(_record(*SUBMIT, *SUBMIT), EACCES,
        "R1 type=scalar expected=ringbuf_mem"),
    "a record after it was given back": Case(_record(*SUBMIT, st_mem(W, 6, 0, 1)), EACCES,
        "R6 invalid mem access 'scalar'"),
    "a part of a record given back": Case(_record(alu64_imm(op.ADD, 6, 8), *SUBMIT), EINVAL,
        "R1 must have zero offset when passed to release func or trusted arg to kfunc"),
    "behind a record": Case(_record(st_mem(DW, 6, 12, 1), *SUBMIT), EACCES,
        "R6 min value is outside of the allowed memory range"),
    "a size that is not known": Case(
        (ldx_mem(W, 2, 1, 0), *_map(RING), mov64_imm(3, 0), call_helper(Helper.RINGBUF_RESERVE),
         *END), EACCES, "R2 is not a known constant'"),
    "no result of a submission": Case(
        (*_reserve(16), mov64_reg(6, 0), jmp_imm(op.JNE, 6, 0, 2), *END, *SUBMIT, X), EACCES,
        "R0 !read_ok"),
    "a record in an array": Case((*_reserve(8, ARRAY), *END), EINVAL,
        "cannot pass map_type 2 into func bpf_ringbuf_reserve#131"),
    "a number for a record": Case((mov64_imm(6, 0), *SUBMIT, *END), EACCES,
        "R1 type=scalar expected=ringbuf_mem"),
    "a map value for a record": Case(
        (*ld_imm64(6, op.PSEUDO_MAP_IDX_VALUE, ARRAY), *SUBMIT, *END), EACCES,
        "R1 type=map_value expected=ringbuf_mem"),
    "a record is memory for other helpers": Case(_record(
        mov64_reg(1, 6), mov64_imm(2, 16), mov64_imm(3, 0), call_helper(Helper.PROBE_READ_KERNEL),
        *SUBMIT)),
    "more than a record for other helpers": Case(_record(
        mov64_reg(1, 6), mov64_imm(2, 17), mov64_imm(3, 0), call_helper(Helper.PROBE_READ_KERNEL),
        *SUBMIT), EACCES, "R1 min value is outside of the allowed memory range"),
    "equal strings": Case(_compare(b"hello", 6)),
    "equal as far as they are compared": Case(_compare(b"help", 3)),
    "a greater string": Case(_compare(b"help", 4), result=1),
    "a lesser string": Case(_compare(b"hell", 5), result=-1),
    "a place in a string": Case(_compare(b"lo", 3, 3)),
    "a string without an end": Case(_compare(b"no", 3, 8), EINVAL,
        "string is not zero-terminated"),
    "a string that may change": Case(_compare(b"no", 3, 0, ARRAY), EACCES,
        "R3 does not point to a readonly map'"),
    "a string on the stack": Case(
        (*_compare(b"no", 3)[:-4], mov64_reg(3, 10), alu64_imm(op.ADD, 3, -8),
         call_helper(Helper.STRNCMP), X), EACCES, "R3 type=fp expected=map_value"),
    "no bytes to compare": Case(_compare(b"no", 0), EACCES,
        "R2 invalid zero-sized read: u64=[0,0]"),
}
# fmt: on
"""By what they show."""
