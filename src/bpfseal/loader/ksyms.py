"""What a loader does about kernel symbols: find them and write them into the instructions.

A symbol is looked up once for each program; later uses copy what the first one found.
Source: ``emit_relo*`` in tools/lib/bpf/gen_loader.c.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    INSN_SIZE,
    alu32_imm,
    alu64_imm,
    call_helper,
    jmp_imm,
    jump,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper
from bpfseal.btf.kinds import Kind
from bpfseal.errors import UnsupportedError
from bpfseal.limits import MAX_MAPS
from bpfseal.loader.emitter import MAX_KFUNC_BTFS, R8, Emitter
from bpfseal.loader.link import ExternUse
from bpfseal.object.model import Extern

_R0, _R1, _R2, _R3, _R4, _R7, _R9 = 0, 1, 2, 3, 4, 7, 9
_REGS, _OFF, _IMM = 1, 2, 4
"""Offsets of the fields of an instruction."""
_NEXT_IMM = INSN_SIZE + _IMM


@dataclass(frozen=True, slots=True)
class _Found:
    """A symbol that was looked up: by what, and the instruction that it was written into."""

    kind: Kind
    is_call: bool
    is_typed: bool
    insn: int
    fd_slot: int = 0


class KsymEmitter:
    """Emits the relocation of the kernel symbols of one program."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._found: dict[tuple[str, Kind, bool], _Found] = {}
        self._uses: dict[tuple[str, Kind, bool], int] = {}
        self._fd_slots = 0

    def relocate(self, uses: Sequence[ExternUse], externs: Sequence[Extern], insns: int) -> None:
        """Emit the relocation of every use.

        Args:
            uses: the instructions that refer to externs.
            externs: the object's externs.
            insns: offset of the program's instructions in the blob.
        """
        for use in uses:
            self._emitter.check_reach()
            extern = externs[use.extern]
            insn = insns + INSN_SIZE * use.insn
            self._emitter.blob_address(R8, insn)
            is_function = use.is_call or extern.is_function
            kind = Kind.FUNC if is_function else Kind.VAR
            key = extern.name, kind, not use.is_call
            first = self._found.get(key)
            if use.is_call:
                emit = self._copy_call if first else self._find_call
            elif extern.type_id:
                emit = self._copy_typed if first else self._find_typed
            else:
                emit = self._copy_typeless if first else self._find_typeless
            found = emit(extern, kind, insn, first)
            self._found.setdefault(key, found)
            self._uses[key] = self._uses.get(key, 0) + 1
            if self._emitter.traces:
                self._trace(extern, found, self._uses[key])

    def _trace(self, extern: Extern, found: _Found, uses: int) -> None:
        """Print what became of the instruction."""
        emitter = self._emitter
        if found.is_call:
            what = f" func ({extern.name}:count={uses})"
            emitter.emit(ldx_mem(op.W, _R7, R8, _IMM), ldx_mem(op.H, _R9, R8, _OFF))
            emitter.trace(f"{what}: imm: %d, off: %d", _R7, _R9)
            emitter.blob_address(_R0, emitter.fd_array_offset(found.fd_slot))
            emitter.emit(ldx_mem(op.W, _R9, _R0, 0))
            emitter.trace_value(f"{what}: btf_fd", _R9)
            return
        what = f" var t={not extern.type_id:d} w={extern.is_weak:d} ({extern.name}:count={uses})"
        # half of the upper word, as the reference prints it
        emitter.emit(ldx_mem(op.W, _R7, R8, _IMM), ldx_mem(op.H, _R9, R8, _NEXT_IMM))
        emitter.trace(f"{what}: imm[0]: %d, imm[1]: %d", _R7, _R9)
        emitter.emit(ldx_mem(op.B, _R9, R8, _REGS))
        emitter.trace_value(f"{what}: insn.reg", _R9)

    def close(self) -> None:
        """Emit the closing of module BTFs that the look-ups opened."""
        for found in self._found.values():
            if found.is_call:
                self._emitter.close_blob_fd(self._emitter.fd_array_offset(found.fd_slot))
            elif found.is_typed:
                self._emitter.close_blob_fd(found.insn + _NEXT_IMM)

    def _fd_slot(self) -> int:
        """Return the next slot of the fd array for a kfunc's BTF."""
        if self._fd_slots >= MAX_KFUNC_BTFS:
            raise UnsupportedError(f"a program calls more than {MAX_KFUNC_BTFS} kfuncs")
        self._fd_slots += 1
        return MAX_MAPS + self._fd_slots - 1

    def _find_call(self, extern: Extern, kind: Kind, insn: int, _first: _Found | None) -> _Found:
        emit = self._emitter.emit
        self._emitter.find_by_name(extern.name, kind)
        if not extern.is_weak:
            self._emitter.check_result()
        slot = self._fd_slot()
        emit(
            jmp_imm(op.JSGE, _R7, 0, 3),
            # not found: a call of nothing, which is fine where it is never reached
            st_mem(op.W, R8, _IMM, 0),
            st_mem(op.H, R8, _OFF, 0),
            jump(10),
            # found: the id goes into the instruction, the BTF's fd into the fd array
            stx_mem(op.W, R8, _R7, _IMM),
            mov64_reg(_R9, _R7),
            alu64_imm(op.RSH, _R9, 32),
        )
        self._emitter.blob_address(_R0, self._emitter.fd_array_offset(slot))
        emit(
            stx_mem(op.W, _R0, _R9, 0),
            jmp_imm(op.JNE, _R9, 0, 2),
            # vmlinux: no fd
            st_mem(op.H, R8, _OFF, 0),
            jump(1),
            st_mem(op.H, R8, _OFF, slot),
        )
        return _Found(kind, is_call=True, is_typed=True, insn=insn, fd_slot=slot)

    def _copy_call(self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._emitter.blob_to_blob(insn + _IMM, 4, first.insn + _IMM)
        self._emitter.blob_to_blob(insn + _OFF, 2, first.insn + _OFF)
        return first

    def _find_typed(self, extern: Extern, kind: Kind, insn: int, _first: _Found | None) -> _Found:
        self._emitter.find_by_name(extern.name, kind)
        if not extern.is_weak:
            self._emitter.check_result()
        self._emitter.emit(
            jmp_imm(op.JSGE, _R7, 0, 3),
            # not found: both halves of the address are zero
            st_mem(op.W, R8, _IMM, 0),
            st_mem(op.W, R8, _NEXT_IMM, 0),
            jump(4),
            # found: id and BTF fd
            stx_mem(op.W, R8, _R7, _IMM),
            alu64_imm(op.RSH, _R7, 32),
            stx_mem(op.W, R8, _R7, _NEXT_IMM),
            jump(3),
        )
        self._clear_source()
        return _Found(kind, is_call=False, is_typed=True, insn=insn)

    def _copy_typed(self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._emitter.blob_to_blob(insn + _NEXT_IMM, 4, first.insn + _NEXT_IMM)
        self._emitter.blob_to_blob(insn + _IMM, 4, first.insn + _IMM)
        self._emitter.emit(jmp_imm(op.JNE, _R0, 0, 3))
        self._clear_source()
        return first

    def _clear_source(self) -> None:
        """Take the BTF pseudo source away: a symbol that is not there is a plain zero."""
        mask = 0x0F if self._emitter.byteorder == "little" else 0xF0
        self._emitter.emit(
            ldx_mem(op.B, _R9, R8, _REGS),
            alu32_imm(op.AND, _R9, mask),
            stx_mem(op.B, R8, _R9, _REGS),
        )

    def _find_typeless(
        self, extern: Extern, kind: Kind, insn: int, _first: _Found | None
    ) -> _Found:
        emitter = self._emitter
        name, size = emitter.add_string(extern.name)
        result = emitter.add_data(bytes(8))
        emitter.blob_address(_R1, name)
        emitter.emit(mov64_imm(_R2, size), mov64_imm(_R3, 0))
        emitter.blob_address(_R4, result)
        emitter.emit(
            mov64_reg(_R7, _R4),
            call_helper(Helper.KALLSYMS_LOOKUP_NAME),
            ldx_mem(op.DW, _R9, _R7, 0),
            mov64_reg(_R7, _R0),
        )
        emitter.trace_result(f"kallsyms_lookup_name({extern.name},{kind:d})")
        emitter.emit(jmp_imm(op.JEQ, _R7, -errno.ENOENT, 1))
        emitter.check_result()
        emitter.emit(
            stx_mem(op.W, R8, _R9, _IMM),
            alu64_imm(op.RSH, _R9, 32),
            stx_mem(op.W, R8, _R9, _NEXT_IMM),
        )
        return _Found(kind, is_call=False, is_typed=False, insn=insn)

    def _copy_typeless(
        self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None
    ) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._emitter.blob_to_blob(insn + _IMM, 4, first.insn + _IMM)
        self._emitter.blob_to_blob(insn + _NEXT_IMM, 4, first.insn + _NEXT_IMM)
        return first
