"""What a loader does about kernel symbols: find them and write them into the instructions.

A symbol is looked up once for each program; later uses copy what the first one found.
Source: ``emit_relo*`` in tools/lib/bpf/gen_loader.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.btf.kinds import Kind
from bpfseal.errors import UnsupportedError
from bpfseal.limits import MAX_MAPS
from bpfseal.loader import steps
from bpfseal.loader.emitter import MAX_KFUNC_BTFS, R7, R8, R9, Emitter
from bpfseal.loader.link import ExternUse
from bpfseal.object.model import Extern


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
            steps.read_call(emitter)
            emitter.trace(f"{what}: imm: %d, off: %d", R7, R9)
            steps.read_fd(emitter, emitter.fd_array_offset(found.fd_slot))
            emitter.trace_value(f"{what}: btf_fd", R9)
            return
        what = f" var t={not extern.type_id:d} w={extern.is_weak:d} ({extern.name}:count={uses})"
        steps.read_address(emitter)
        emitter.trace(f"{what}: imm[0]: %d, imm[1]: %d", R7, R9)
        steps.read_registers(emitter)
        emitter.trace_value(f"{what}: insn.reg", R9)

    def close(self) -> None:
        """Emit the closing of module BTFs that the look-ups opened."""
        for found in self._found.values():
            if found.is_call:
                self._emitter.close_blob_fd(self._emitter.fd_array_offset(found.fd_slot))
            elif found.is_typed:
                self._emitter.close_blob_fd(found.insn + steps.TYPED_FD)

    def _copy(self, fields: Sequence[tuple[int, int]], insn: int, first: _Found) -> None:
        for offset, size in fields:
            self._emitter.blob_to_blob(insn + offset, size, first.insn + offset)

    def _fd_slot(self) -> int:
        """Return the next slot of the fd array for a kfunc's BTF."""
        if self._fd_slots >= MAX_KFUNC_BTFS:
            raise UnsupportedError(f"a program calls more than {MAX_KFUNC_BTFS} kfuncs")
        self._fd_slots += 1
        return MAX_MAPS + self._fd_slots - 1

    def _find_call(self, extern: Extern, kind: Kind, insn: int, _first: _Found | None) -> _Found:
        self._emitter.find_by_name(extern.name, kind)
        if not extern.is_weak:
            self._emitter.check_result()
        slot = self._fd_slot()
        steps.keep_call(self._emitter, slot, self._emitter.fd_array_offset(slot))
        return _Found(kind, is_call=True, is_typed=True, insn=insn, fd_slot=slot)

    def _copy_call(self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._copy(steps.COPIED_CALL, insn, first)
        return first

    def _find_typed(self, extern: Extern, kind: Kind, insn: int, _first: _Found | None) -> _Found:
        self._emitter.find_by_name(extern.name, kind)
        if not extern.is_weak:
            self._emitter.check_result()
        steps.keep_typed(self._emitter)
        return _Found(kind, is_call=False, is_typed=True, insn=insn)

    def _copy_typed(self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._copy(steps.COPIED_TYPED, insn, first)
        steps.clear_source_if_absent(self._emitter)
        return first

    def _find_typeless(
        self, extern: Extern, kind: Kind, insn: int, _first: _Found | None
    ) -> _Found:
        emitter = self._emitter
        name, size = emitter.add_string(extern.name)
        result = emitter.add_data(bytes(8))
        steps.look_up_address(emitter, name, size, result)
        emitter.trace_result(f"kallsyms_lookup_name({extern.name},{kind:d})")
        steps.allow_absent(emitter)
        emitter.check_result()
        steps.keep_address(emitter)
        return _Found(kind, is_call=False, is_typed=False, insn=insn)

    def _copy_typeless(
        self, _extern: Extern, _kind: Kind, insn: int, first: _Found | None
    ) -> _Found:
        assert first  # noqa: S101 (chosen by relocate)
        self._copy(steps.COPIED_TYPELESS, insn, first)
        return first
