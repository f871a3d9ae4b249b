"""Read what a loader does about kernel symbols: the other side of `bpfseal.loader.ksyms`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.btf.kinds import Kind
from bpfseal.limits import MAX_MAPS
from bpfseal.loader import steps
from bpfseal.loader.cursor import Cursor
from bpfseal.loader.emitter import MAX_KFUNC_BTFS, PROLOGUE_SLOTS, Emitter


@dataclass(slots=True)
class Symbol:
    """A kernel symbol that was looked up: where its fields go, and what has to be closed."""

    copied: Sequence[tuple[int, int]]
    close_at: int | None


@dataclass(slots=True)
class SymbolReader(Cursor):
    """A cursor that takes the relocation of a program's kernel symbols."""

    def peek_source(self) -> int | None:
        """Return where the next copy comes from, without taking it."""
        start = self.at
        found = self.accept("copy_word")
        self.at = start
        return found[1] if found else None

    def symbols(self, insns: int, count: int) -> Collection[Symbol]:
        """Read the relocation of a program's kernel symbols, and return each of them once."""
        found: dict[int, Symbol] = {}
        calls = 0
        while (places := self.accept("relocate")) is not None:
            (insn,) = places
            if not insns <= insn < insns + INSN_SIZE * count or (insn - insns) % INSN_SIZE:
                self.refuse("a relocation outside of the program")
            first = self.peek_source_of_copy(found)
            if first is not None:
                self.copy(insn, first, found[first])
                symbol = found[first]
            else:
                symbol = found[insn] = self.look_up(insn, calls)
                calls += symbol.copied is steps.COPIED_CALL
            self.trace_symbol(symbol)
        return found.values()

    def peek_source_of_copy(self, known: Mapping[int, Symbol]) -> int | None:
        """Return the instruction that the next step copies from, ``None`` for a look-up."""
        source = self.peek_source()
        if source is None:
            return None
        for offset in (steps.COPIED_CALL[0][0], steps.COPIED_TYPED[0][0]):
            if source - offset in known and known[source - offset].copied[0][0] == offset:
                break
        else:
            self.refuse("a copy of a symbol that was not looked up")
        return source - offset

    def copy(self, insn: int, first: int, symbol: Symbol) -> None:
        """Take the copying of what a symbol's first use found."""
        for offset, size in symbol.copied:
            step = "copy_word" if size == 4 else "copy_half"
            self.expect(step, insn + offset, first + offset)
        if symbol.copied is steps.COPIED_TYPED:
            self.take("clear_source_if_absent")

    def look_up(self, insn: int, calls: int) -> Symbol:
        """Take the look-up of a symbol."""
        found = self.accept("find_by_name")
        if found is None:
            self.look_up_typeless()
            return Symbol(steps.COPIED_TYPELESS, None)
        name, size, kind = found
        self.name(name, size)
        if kind not in (Kind.FUNC, Kind.VAR):
            self.refuse(f"a symbol of kind {kind}")
        self.trace()
        if self.accept_if("check_result", PROLOGUE_SLOTS - self.at // INSN_SIZE - 1):
            pass  # a symbol that must be there
        if self.accept("keep_typed") is not None:
            return Symbol(steps.COPIED_TYPED, insn + steps.TYPED_FD)
        slot, offset = self.take("keep_call")
        if slot != MAX_MAPS + calls or offset != Emitter.fd_array_offset(slot):
            self.refuse("a kfunc's BTF goes elsewhere")
        if calls >= MAX_KFUNC_BTFS:
            self.refuse(f"more than {MAX_KFUNC_BTFS} kfuncs")
        return Symbol(steps.COPIED_CALL, offset)

    def look_up_typeless(self) -> None:
        """Take the look-up of an address in kallsyms."""
        name, size, result = self.take("look_up_address")
        self.name(name, size)
        self.zeros(result, 8)
        self.trace()
        self.take("allow_absent")
        self.check_result()
        self.take("keep_address")

    def trace_symbol(self, symbol: Symbol) -> None:
        """Take the printing of what became of an instruction."""
        if not self.traces:
            return
        if symbol.copied is steps.COPIED_CALL:
            self.take("read_call")
            self.trace("trace_fields")
            self.expect("read_fd", symbol.close_at or 0)
        else:
            self.take("read_address")
            self.trace("trace_fields")
            self.take("read_registers")
        self.trace("trace_field")
