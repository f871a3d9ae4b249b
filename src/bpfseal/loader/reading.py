"""Read a loader back: what it makes, derived from its instructions and metadata alone.

What lies beside a loader in a bundle is signed by nobody; what the loader does is. So whoever needs
to know the loader's maps and programs reads them here.

A loader is one step after another (`bpfseal.loader.forms`), and its metadata one piece of data
after another in the order of those steps. The reader takes the steps in the order in which a
generator emits them and accounts for everything: each instruction belongs to a step, each byte of
the metadata to the piece that a step uses. What is left over, missing or in another order is
refused. So the border between instructions and metadata, and the scheme, cannot be other than they
were when the loader was made.

Source: tools/lib/bpf/gen_loader.c.

Example:
    >>> reading = read_loader(loader.insns, loader.metadata, loader.byteorder)  # doctest: +SKIP
    >>> [made.name for made in reading.maps]  # doctest: +SKIP
    ['started', 'events', 'exectrac.rodata']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bpfseal.bpf import attr
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, call_helper
from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.errors import InputError
from bpfseal.limits import MAX_MAPS
from bpfseal.loader import steps
from bpfseal.loader.check_block import find_check
from bpfseal.loader.emitter import FD_ARRAY_SIZE, Emitter
from bpfseal.loader.forms import forms_of
from bpfseal.loader.frame import Frame
from bpfseal.loader.model import CTX_HEADER_SIZE, MAP_DESC_SIZE, PROG_DESC_SIZE
from bpfseal.loader.symbol_reading import SymbolReader
from bpfseal.scheme import KFUNC
from bpfseal.sections import attach_lookup

_MAP_IN_MAP: Final = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
_KEY_SIZE: Final = 4
_FD_SIZE: Final = 4

_MAP_FIELDS: Final = (
    "map_type",
    "key_size",
    "value_size",
    "max_entries",
    "map_flags",
    "numa_node",
    "map_name",
    "btf_key_type_id",
    "btf_value_type_id",
    "map_extra",
)
_PROGRAM_FIELDS: Final = (
    "prog_type",
    "insn_cnt",
    "prog_flags",
    "prog_name",
    "expected_attach_type",
    "func_info_rec_size",
    "func_info_cnt",
    "line_info_rec_size",
    "line_info_cnt",
    "attach_btf_id",
    "core_relo_cnt",
    "core_relo_rec_size",
)
_POINTERS: Final = ("license", "insns", "func_info", "line_info", "core_relos", "fd_array")


@dataclass(frozen=True, slots=True)
class MadeMap:
    """A map that a loader creates.

    Attributes:
        name: its name in the kernel.
        fields: the numbers of BPF_MAP_CREATE.
        initial_value: what the loader puts under its one key, ``None`` if it is no global data.
    """

    name: str
    fields: Mapping[str, int]
    initial_value: bytes | None


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A program that a loader loads.

    Attributes:
        name: its name in the kernel.
        fields: the numbers of BPF_PROG_LOAD.
        insns: its instructions, before the loader writes kernel symbols into them.
        attach_target: the name that is looked up in the kernel's BTF, or ``""``.
        function_id: the BTF type of its first function, 0 if it has no such records.
    """

    name: str
    fields: Mapping[str, int]
    insns: bytes
    attach_target: str
    function_id: int


@dataclass(frozen=True, slots=True)
class LoaderReading:
    """What a loader does.

    Attributes:
        check: the scheme whose check block it begins with, or ``None``.
        takes_host_values: it takes sizes and contents of maps from the context; ``None`` if it has
            no map to take them for.
        traces: it prints what it does.
        btf: the object's BTF, or ``b""`` if it loads none.
        maps: the maps in the order of the context.
        programs: the programs in the order of the context.
    """

    check: str | None
    takes_host_values: bool | None
    traces: bool
    btf: bytes
    maps: tuple[MadeMap, ...]
    programs: tuple[LoadedProgram, ...]


def read_loader(insns: bytes, metadata: bytes, byteorder: ByteOrder) -> LoaderReading:
    """Read a loader back. The time is linear in its size.

    Args:
        insns: the loader program.
        metadata: what it works on.
        byteorder: the byte order of both.

    Raises:
        InputError: they are no loader that a generator makes; with the place.
    """
    return _Reader(insns, metadata, byteorder).run()


@dataclass(slots=True)
class _Reader(SymbolReader):
    """The state while one loader is read."""

    frame: Frame = field(default_factory=lambda: Frame(has_hash=False))
    host_values: set[bool] = field(default_factory=set)
    kept_fds: int | None = None

    # The parts of a loader

    def run(self) -> LoaderReading:
        """Read everything in order."""
        if len(self.insns) % INSN_SIZE:
            raise InputError(
                f"{len(self.insns)} bytes of instructions are no multiple of {INSN_SIZE}"
            )
        self.traces = self._calls(Helper.TRACE_PRINTK)
        found = find_check(self.insns, self.byteorder)
        self.frame = Frame(has_hash=found is not None and found.scheme_name == KFUNC.name)
        has_hash = self.frame.has_hash
        self.forms = forms_of(self.byteorder, traces=self.traces, has_hash=has_hash)
        map_count, in_frame = self.prologue()
        if found:
            if self.at != found.start * INSN_SIZE:
                self.refuse("the check of the metadata stands elsewhere")
            self.at = found.end * INSN_SIZE
        btf = self.btf()
        maps = tuple([self.map(number) for number in range(map_count)])
        programs: list[LoadedProgram] = []
        while (pointers := self.accept("pointers")) is not None:
            programs.append(self.program(pointers, len(programs)))
        self.check_count(len(programs), in_frame)
        self.program_arrays(maps, len(programs))
        self.finish(len(programs), map_count)
        if self.at != len(self.insns):
            self.refuse("instructions behind its end")
        if self.used != len(self.metadata):
            self.refuse(f"{len(self.metadata) - self.used} bytes of metadata that it does not use")
        return LoaderReading(
            check=found.scheme_name if found else None,
            takes_host_values=self.host_values.pop() if len(self.host_values) == 1 else None,
            traces=self.traces,
            btf=btf,
            maps=maps,
            programs=tuple(programs),
        )

    def _calls(self, helper: Helper) -> bool:
        """Whether a slot is a call of a helper. The second slot of a ld_imm64 never looks so."""
        wanted = call_helper(helper).encode(self.byteorder)
        at = self.insns.find(wanted)
        while at >= 0 and at % INSN_SIZE:
            at = self.insns.find(wanted, at + 1)
        return at >= 0

    def prologue(self) -> tuple[int, int]:
        """Read the start, and return how many maps and fds in the frame the cleanup closes."""
        self.zeros(0, FD_ARRAY_SIZE)
        self.take("save_ctx")
        (over_cleanup,) = self.take("jump")
        start = self.at
        words = 0
        while self.accept_if("clean_stack", 4 * words - self.frame.size):
            words += 1
        maps = kept = 0
        closed_at = self.at
        offsets: list[int] = []
        while (found := self.accept("close_blob")) is not None:
            offsets.append(found[0])
            maps += found[0] < FD_ARRAY_SIZE
            kept += found[0] >= FD_ARRAY_SIZE
            if self.traces:
                self.take("trace_close")
        if offsets != [
            *(Emitter.fd_array_offset(number) for number in range(maps)),
            *(FD_ARRAY_SIZE + _FD_SIZE * number for number in range(kept)),
        ]:
            self.refuse("the cleanup closes something else than fds", closed_at)
        if kept:
            self.kept_fds = FD_ARRAY_SIZE
            self.zeros(FD_ARRAY_SIZE, _FD_SIZE * kept)
        if self.traces:
            self.at = closed_at
            for _ in offsets:
                self.take("close_blob")
                self.trace("trace_close")
        self.take("end_of_cleanup")
        if self.at != start + INSN_SIZE * over_cleanup:
            self.refuse("the jump over the cleanup leads elsewhere", start)
        in_frame = words - (self.frame.prog_fd(0) + self.frame.size) // 4
        if not in_frame >= 0 or maps > MAX_MAPS:
            self.refuse("the cleanup closes something else than fds", start)
        return maps, kept or in_frame

    def check_count(self, programs: int, cleaned: int) -> None:
        """Check that the cleanup closes all that is loaded; in the frame subprograms count, too."""
        if (programs != cleaned) if self.kept_fds is not None else (programs > cleaned):
            self.refuse(f"{programs} programs, the cleanup closes {cleaned}")

    def btf(self) -> bytes:
        """Read the loading of the object's BTF, if there is one."""
        layout, last = attr.BTF_LOAD, "btf_log_level"
        start = self.at
        found = self.accept("log")
        if found is None:
            return b""
        self.at = start
        at = found[0] - layout.offset("btf_log_level")
        self.log(layout, "btf_", at)
        fields = self.peek(layout, last, at, layout.end(last))
        target = self.store(at + layout.offset("btf"))
        raw = self.data(target, fields["btf_size"])
        self.attribute(layout, last, at, ("btf_size",))
        self.expect("load_btf", at, layout.end(last))
        self.trace()
        self.check_result()
        self.expect("result_to_stack", self.frame.btf_fd)
        return raw

    # Maps

    def map(self, number: int) -> MadeMap:
        """Read the creation of a map, and what it is filled with."""
        name, fields, is_inner = self.create(number)
        if is_inner:
            name, fields, is_inner = self.create(number)
            if is_inner or fields["map_type"] not in _MAP_IN_MAP:
                self.refuse("a pattern of inner maps without a map of maps")
        value = self.global_data(number, fields)
        if fields["map_type"] in _MAP_IN_MAP:
            while self.slot(number):
                pass
        return MadeMap(name, fields, value)

    def create(self, number: int) -> tuple[str, dict[str, int], bool]:
        """Read BPF_MAP_CREATE; the last value says that it is the pattern of inner maps."""
        layout, last = attr.MAP_CREATE, "map_extra"
        btf_fd, inner_fd = self.fd_fields()
        max_entries = self.accept("host_max_entries")
        at, size = self.take("create_map")
        fields = self.peek(layout, last, at, size)
        raw = self.attribute(layout, last, at, _MAP_FIELDS)
        name = self.name_field(layout, raw, "map_name")
        is_outer = fields["map_type"] in _MAP_IN_MAP
        if btf_fd != (at + layout.offset("btf_fd") if fields["btf_value_type_id"] else None):
            self.refuse(f"map {name} gets a BTF at {btf_fd}")
        if inner_fd != (at + layout.offset("inner_map_fd") if is_outer else None):
            self.refuse(f"map {name} gets an inner map at {inner_fd}")
        self.trace()
        self.check_result()
        is_inner = self.accept_if("result_to_stack", self.frame.inner_map_fd)
        if not is_inner:
            self.expect("result_to_blob", Emitter.fd_array_offset(number))
            self.host_values.add(max_entries is not None)
        desc = CTX_HEADER_SIZE + MAP_DESC_SIZE * number + steps.DESC_MAX_ENTRIES
        wanted = at + layout.offset("max_entries"), desc
        if max_entries not in (None, wanted) or (is_inner and max_entries):
            self.refuse(f"the size of map {name} comes from elsewhere in the context")
        if len(self.host_values) > 1:
            self.refuse("the host says the sizes of some maps only")
        if is_outer:
            self.expect("close_stack", self.frame.inner_map_fd)
            self.trace("trace_close")
        return name, fields, is_inner

    def fd_fields(self) -> tuple[int | None, int | None]:
        """Take the writing of BTF and inner map into an attribute, and return where to."""
        places: dict[int, int] = {}
        while (found := self.accept("stack_to_blob")) is not None:
            at, stack = found
            if stack in places or stack not in (self.frame.btf_fd, self.frame.inner_map_fd):
                self.refuse("a map gets another fd than BTF and inner map")
            places[stack] = at
        return places.get(self.frame.btf_fd), places.get(self.frame.inner_map_fd)

    def global_data(self, number: int, fields: Mapping[str, int]) -> bytes | None:
        """Read the filling of a map of global data, if it is one."""
        start = self.at
        from_host = self.accept("host_value")
        found = self.update(number)
        if found is None or found[1] < FD_ARRAY_SIZE:
            if from_host is not None:
                self.refuse("the host says a value that is not used")
            self.at = start
            return None
        key, value, at = found
        size = fields["value_size"]
        data = self.data(value, size)
        self.zeros(key, _KEY_SIZE)
        self.attribute(attr.MAP_ELEM, "flags", at, ())
        desc = CTX_HEADER_SIZE + MAP_DESC_SIZE * number + steps.DESC_INITIAL_VALUE
        if from_host != ((desc, value, size) if True in self.host_values else None):
            self.refuse("the contents of a map come from elsewhere in the context", start)
        self.trace()
        self.check_result()
        if fields["map_flags"] & MapFlag.RDONLY_PROG:
            self.freeze(number)
        return data

    def update(self, number: int) -> tuple[int, int, int] | None:
        """Take BPF_MAP_UPDATE_ELEM of a map, and return where key, value and attribute lie."""
        layout = attr.MAP_ELEM
        found = self.accept("copy_word")
        if found is None:
            return None
        at, source = found
        if source != Emitter.fd_array_offset(number):
            self.refuse("another map is filled")
        key = self.store(at + layout.offset("key"))
        value = self.store(at + layout.offset("value"))
        self.expect("update", at, layout.size)
        return key, value, at

    def freeze(self, number: int) -> None:
        """Take BPF_MAP_FREEZE of a map."""
        at, source = self.take("copy_word")
        self.attribute(attr.MAP_FREEZE, "map_fd", at, ())
        if source != Emitter.fd_array_offset(number):
            self.refuse("another map is frozen")
        self.expect("freeze", at, attr.MAP_FREEZE.size)
        self.trace()
        self.check_result()

    def slot(self, number: int, *, program: int | None = None) -> bool:
        """Take the filling of a slot of a map of maps or programs, if it comes next."""
        start = self.at
        if program is None and self.peek_source() != Emitter.fd_array_offset(number):
            return False
        found = self.update(number)
        if found is None:
            return False
        key, value, at = found
        if program is None and (value % _FD_SIZE or not 0 <= value < _FD_SIZE * MAX_MAPS):
            self.refuse("a slot of a map of maps holds no map", start)
        if program is not None and value != program:
            self.refuse("a slot of a program array holds another fd", start)
        self.data(key, _KEY_SIZE)
        self.attribute(attr.MAP_ELEM, "flags", at, ())
        self.trace()
        self.check_result()
        return True

    # Programs

    def program(self, pointers: tuple[int, ...], number: int) -> LoadedProgram:
        """Read the loading of a program, whose pointers are taken already."""
        layout, last = attr.PROG_LOAD, "core_relo_rec_size"
        targets = dict(zip(_POINTERS, pointers[::2], strict=True))
        at = pointers[1] - layout.offset("license")
        if pointers[1::2] != tuple(at + layout.offset(name) for name in _POINTERS):
            self.refuse("the pointers of a program go elsewhere")
        fields = self.peek(layout, last, at, layout.end(last))
        license_end = self.metadata.find(0, self.used) + 1
        self.string(targets["license"], license_end - self.used)
        insns = self.data(targets["insns"], INSN_SIZE * fields["insn_cnt"])
        sizes = {
            "func_info": fields["func_info_rec_size"] * fields["func_info_cnt"],
            "line_info": fields["line_info_rec_size"] * fields["line_info_cnt"],
            "core_relos": steps.CORE_RELO_SIZE * fields["core_relo_cnt"],
        }
        func_info, *_ = [self.data(targets[name], size) for name, size in sizes.items()]
        raw = self.attribute(layout, last, at, _PROGRAM_FIELDS)
        if targets["fd_array"] or fields["core_relo_rec_size"] != steps.CORE_RELO_SIZE:
            self.refuse("a program with another fd array or other CO-RE records")
        self.log(layout, "", at)
        self.expect("stack_to_blob", at + layout.offset("prog_btf_fd"), self.frame.btf_fd)
        target = self.attach_target(fields, at)
        symbols = self.symbols(targets["insns"], fields["insn_cnt"])
        self.expect("load_program", at, layout.end(last))
        self.trace()
        for symbol in symbols:
            if symbol.close_at is not None:
                self.expect("close_blob", symbol.close_at)
                self.trace("trace_close")
        if target:
            self.expect("close_blob", at + layout.offset("attach_btf_obj_fd"))
            self.trace("trace_close")
        self.check_result()
        if self.kept_fds is None:
            self.expect("result_to_stack", self.frame.prog_fd(number))
        else:
            self.expect("result_to_blob", self.kept_fds + _FD_SIZE * number)
        return LoadedProgram(
            name=self.name_field(layout, raw, "prog_name"),
            fields=fields,
            insns=insns,
            attach_target=target,
            function_id=int.from_bytes(func_info[4:8], self.byteorder),
        )

    def attach_target(self, fields: Mapping[str, int], at: int) -> str:
        """Read the look-up of a program's attach target, if it has one."""
        if not fields["attach_btf_id"]:
            return ""
        name, size, kind = self.take("find_by_name")
        target = self.name(name, size)
        prefix, wanted = attach_lookup(fields["expected_attach_type"])
        if kind != wanted or not target.startswith(prefix) or fields["attach_btf_id"] != 1:
            self.refuse(f"{target} is no target of such a program")
        self.trace()
        self.check_result()
        self.expect("keep_attach_target", at)
        return target

    # The end

    def program_arrays(self, maps: Sequence[MadeMap], programs: int) -> None:
        """Read the filling of program arrays."""
        for number, made in enumerate(maps):
            if made.fields["map_type"] != MapType.PROG_ARRAY:
                continue
            if self.kept_fds is not None:
                while self.peek_source() == Emitter.fd_array_offset(number):
                    self.kept_slot(number, programs)
                continue
            while (found := self.accept("stack_to_blob")) is not None:
                at, stack = found
                target, rest = divmod(stack - self.frame.prog_fd(0), _FD_SIZE)
                if self.peek_source() != Emitter.fd_array_offset(number):
                    self.at -= self.size_of("stack_to_blob")
                    break
                if rest or not 0 <= target < programs:
                    self.refuse("a slot of a program array holds no program")
                self.zeros(at, _FD_SIZE)
                self.slot(number, program=at)

    def kept_slot(self, number: int, programs: int) -> None:
        """Take the filling of a slot with a program's fd that is kept in the metadata."""
        start = self.at
        found = self.update(number)
        assert found is not None and self.kept_fds is not None  # noqa: S101, PT018 - peeked at
        self.at = start
        target, rest = divmod(found[1] - self.kept_fds, _FD_SIZE)
        if rest or not 0 <= target < programs:
            self.refuse("a slot of a program array holds no program")
        self.slot(number, program=found[1])

    def finish(self, programs: int, maps: int) -> None:
        """Read the handing over of all fds."""
        self.expect("close_stack", self.frame.btf_fd)
        self.trace("trace_close")
        behind_maps = CTX_HEADER_SIZE + MAP_DESC_SIZE * maps
        for number in range(programs):
            ctx = behind_maps + PROG_DESC_SIZE * number
            if self.kept_fds is None:
                self.expect("stack_to_ctx", ctx, self.frame.prog_fd(number))
            else:
                self.expect("blob_to_ctx", ctx, self.kept_fds + _FD_SIZE * number)
        for number in range(maps):
            ctx = CTX_HEADER_SIZE + MAP_DESC_SIZE * number
            self.expect("blob_to_ctx", ctx, Emitter.fd_array_offset(number))
        self.take("leave")
