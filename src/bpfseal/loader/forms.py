"""What the steps of a loader look like: patterns of instructions with numbers left open.

The patterns are made by the very functions that emit the steps (`bpfseal.loader.emitter`,
`bpfseal.loader.steps`): each is called with numbers that mark the open places. So there is one
place that says what a step is.

Example:
    >>> forms = forms_of("little", traces=False, has_hash=False)
    >>> forms["leave"].match(bytes.fromhex("b700000000000000" "9500000000000000"), 0)
    ()
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, Insn, exit_insn, jmp_imm, jump, mov64_reg
from bpfseal.bpf.uapi import Cmd
from bpfseal.loader import steps
from bpfseal.loader.emitter import R0, R7, R8, R9, Emitter
from bpfseal.loader.frame import Frame

_IMM: Final = 0x7A51_0000
"""Marks an open immediate: this number and those behind it, in the order of the arguments."""

_OFF: Final = 0x7A00
"""The same for an open offset."""

_IMM_AT, _OFF_AT = 4, 2


@dataclass(frozen=True, slots=True)
class Form:
    """A pattern of instructions.

    Attributes:
        size: bytes of all its instructions.
        pattern: the instructions, with a group for each open place.
        numbers: how the open numbers are written, one behind the other.
        order: for each argument, which group it is.
    """

    size: int
    pattern: re.Pattern[bytes]
    numbers: struct.Struct
    order: tuple[int, ...]

    def match(self, insns: bytes, at: int) -> tuple[int, ...] | None:
        """Return the open numbers at an offset, ``None`` where something else stands there."""
        found = self.pattern.match(insns, at)
        if found is None:
            return None
        numbers = self.numbers.unpack(b"".join(found.groups()))
        return tuple([numbers[group] for group in self.order])


def _form(insns: Sequence[Insn], byteorder: ByteOrder) -> Form:
    """Return the pattern of instructions in which open places are marked."""
    parts: list[bytes] = []
    marked: list[int] = []
    layout = "<" if byteorder == "little" else ">"
    for insn in insns:
        raw = insn.encode(byteorder)
        if insn.imm & ~0xFF == _IMM:
            marked.append(insn.imm & 0xFF)
            layout += "i"
            parts += [re.escape(raw[:_IMM_AT]), b"(.{4})"]
        elif insn.off & ~0xFF == _OFF:
            marked.append(insn.off & 0xFF)
            layout += "h"
            parts += [re.escape(raw[:_OFF_AT]), b"(..)", re.escape(raw[_IMM_AT:])]
        else:
            parts.append(re.escape(raw))
    order = tuple(marked.index(place) for place in range(len(marked)))
    pattern = re.compile(b"".join(parts), re.DOTALL)
    return Form(INSN_SIZE * len(insns), pattern, struct.Struct(layout), order)


def _log(emitter: Emitter, at: int, level: int, size: int) -> None:
    for place, (_, width, ctx_offset) in zip((at, level, size), steps.CTX_LOG, strict=True):
        emitter.ctx_to_blob(place, width, ctx_offset, unless_zero=False)


def _pointers(emitter: Emitter, *places: int) -> None:
    """Fill an attribute's pointers: target and place of each."""
    for target, at in zip(places[::2], places[1::2], strict=True):
        emitter.store_blob_address(at, target)


_STEPS: Final[Mapping[str, tuple[str, Callable[..., None]]]] = {
    # The start.
    "save_ctx": ("", lambda e: e.save_ctx_and_clear_stack()),
    "jump": ("o", lambda e, off: e.emit(jump(off))),
    "clean_stack": ("o", lambda e, at: e.clean_stack_fd(at)),
    "end_of_cleanup": ("", lambda e: e.emit(mov64_reg(R0, R7), exit_insn())),
    # Between memory, stack and context.
    "store": ("ii", lambda e, at, target: e.store_blob_address(at, target)),
    "copy_word": ("ii", lambda e, at, source: e.blob_to_blob(at, 4, source)),
    "copy_half": ("ii", lambda e, at, source: e.blob_to_blob(at, 2, source)),
    "blob_to_ctx": ("oi", lambda e, ctx, source: e.blob_to_ctx(ctx, source)),
    "stack_to_blob": ("io", lambda e, at, stack: e.stack_to_blob(at, stack)),
    "stack_to_ctx": ("oo", lambda e, ctx, stack: e.stack_to_ctx(ctx, stack)),
    "result_to_stack": ("o", lambda e, stack: e.result_to_stack(stack)),
    "result_to_blob": ("i", lambda e, at: e.result_to_blob(at)),
    "host_max_entries": ("io", lambda e, at, ctx: e.ctx_to_blob(at, 4, ctx, unless_zero=True)),
    "host_value": ("oii", lambda e, *places: steps.take_value_from_host(e, *places)),
    "log": ("iii", _log),
    # Calls.
    "load_btf": ("ii", lambda e, at, size: e.sys_bpf(Cmd.BTF_LOAD, at, size)),
    "create_map": ("ii", lambda e, at, size: e.sys_bpf(Cmd.MAP_CREATE, at, size)),
    "update": ("ii", lambda e, at, size: e.sys_bpf(Cmd.MAP_UPDATE_ELEM, at, size)),
    "freeze": ("ii", lambda e, at, size: e.sys_bpf(Cmd.MAP_FREEZE, at, size)),
    "load_program": ("ii", lambda e, at, size: e.sys_bpf(Cmd.PROG_LOAD, at, size)),
    "find_by_name": ("iii", lambda e, *places: e.call_find_by_name(*places)),
    "close_stack": ("o", lambda e, at: e.call_close_of_stack(at)),
    "close_blob": ("i", lambda e, at: e.call_close_of_blob(at)),
    "check_result": ("o", lambda e, off: e.emit(jmp_imm(op.JSLT, R7, 0, off))),
    # A program.
    "pointers": ("iiiiiiiiiiii", _pointers),
    "keep_attach_target": ("i", lambda e, at: steps.keep_attach_target(e, at)),
    "leave": ("", steps.leave),
    # Kernel symbols.
    "relocate": ("i", lambda e, insn: e.blob_address(R8, insn)),
    "keep_call": ("ii", lambda e, slot, offset: steps.keep_call(e, slot, offset)),
    "keep_typed": ("", steps.keep_typed),
    "clear_source_if_absent": ("", steps.clear_source_if_absent),
    "look_up_address": ("iii", lambda e, *places: steps.look_up_address(e, *places)),
    "allow_absent": ("", steps.allow_absent),
    "keep_address": ("", steps.keep_address),
    # What is printed.
    "trace_result": ("ii", lambda e, *places: e.call_trace(*places, R7)),
    "trace_close": ("ii", lambda e, *places: e.call_trace(*places, R9, R0)),
    "trace_fields": ("ii", lambda e, *places: e.call_trace(*places, R7, R9)),
    "trace_field": ("ii", lambda e, *places: e.call_trace(*places, R9)),
    "read_call": ("", steps.read_call),
    "read_fd": ("i", steps.read_fd),
    "read_address": ("", steps.read_address),
    "read_registers": ("", steps.read_registers),
}
"""The steps: the kinds of their open numbers (immediate or offset), and who emits them."""


@lru_cache(maxsize=16)
def forms_of(byteorder: ByteOrder, *, traces: bool, has_hash: bool) -> Mapping[str, Form]:
    """Return the patterns of all steps.

    Args:
        byteorder: of the instructions.
        traces: of loaders that print what they do.
        has_hash: of loaders whose frame holds the digest of the metadata.
    """
    made: dict[str, Form] = {}
    for name, (kinds, emit) in _STEPS.items():
        emitter = Emitter(Frame(has_hash=has_hash), byteorder, traces=traces)
        emit(
            emitter,
            *((_IMM if kind == "i" else _OFF) + place for place, kind in enumerate(kinds)),
        )
        made[name] = _form(emitter.insns, byteorder)
    return made
