"""From a `BpfObject` to a `Loader`.

The loader does, in this order: load the BTF; create each map, fill it and freeze it; load each
program with what it refers to; hand all fds back. The bytes are those of the reference generator
(tools/lib/bpf/gen_loader.c) for the same object.

Example:
    >>> loader = generate(obj, "kfunc")  # doctest: +SKIP
    >>> len(loader.excl_prog_hash)  # doctest: +SKIP
    32
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from bpfseal.bpf import attr
from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bpf.uapi import OBJ_NAME_LEN, Cmd, MapType, ProgType
from bpfseal.bpf.words import to_bytes
from bpfseal.errors import BpfsealError, UnsupportedError
from bpfseal.limits import MAX_GROWTH, MAX_MAPS
from bpfseal.loader import steps
from bpfseal.loader.checks import CHECKS, LOADER_BTF
from bpfseal.loader.emitter import FD_ARRAY_SIZE, Emitter
from bpfseal.loader.frame import MAX_STACK_PROGRAMS, Frame
from bpfseal.loader.ksyms import KsymEmitter
from bpfseal.loader.link import LinkedProgram, link
from bpfseal.loader.model import (
    CTX_HEADER_SIZE,
    MAP_DESC_SIZE,
    PROG_DESC_SIZE,
    Loader,
    MapEntry,
    ProgramEntry,
)
from bpfseal.object.model import BpfObject, Function, MapSource, MapSpec
from bpfseal.scheme import SCHEMES, Scheme
from bpfseal.sections import attach_lookup

_MAX_ATTACH_TARGET = 127
_MAP_IN_MAP = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)


def generate(obj: BpfObject, scheme_name: str, *, traces: bool = False) -> Loader:
    """Generate the loader of an object.

    Args:
        obj: the object.
        scheme_name: a key of `bpfseal.scheme.SCHEMES`.
        traces: the loader prints each of its steps to the kernel's trace buffer (the reference's
            log level 1). It becomes about half as large again.

    Raises:
        UnsupportedError: the object holds something, or so much, that no loader can.
        InputError: a reference in the object leads nowhere.
    """
    try:
        return _Generator(obj, SCHEMES[scheme_name], traces=traces).run()
    except BpfsealError as error:
        error.where = f"{obj.name}: {error.where}" if error.where else obj.name
        raise


def generate_all(
    obj: BpfObject, scheme_names: Iterable[str], *, traces: bool = False
) -> list[Loader]:
    """Generate the loaders of an object; those with the same metadata share it in memory.

    Raises:
        UnsupportedError: see `generate`.
        InputError: see `generate`.
    """
    loaders: list[Loader] = []
    for scheme_name in scheme_names:
        loader = generate(obj, scheme_name, traces=traces)
        if loaders and loaders[0].metadata == loader.metadata:
            loader = replace(loader, metadata=loaders[0].metadata)
        loaders.append(loader)
    return loaders


class _Generator:
    """The state while one loader is generated."""

    def __init__(self, obj: BpfObject, scheme: Scheme, *, traces: bool) -> None:
        if len(obj.maps) > MAX_MAPS:
            raise UnsupportedError(f"{len(obj.maps)} maps, a loader holds {MAX_MAPS}")
        self._obj = obj
        self._scheme = scheme
        frame = Frame(has_hash=scheme.has_loader_btf)
        self._emitter = Emitter(frame, obj.byteorder, traces=traces)
        self._kept_fds: int | None = None

    def run(self) -> Loader:
        """Generate everything in order."""
        obj, emitter = self._obj, self._emitter
        functions = obj.programs
        emitter.add_data(bytes(FD_ARRAY_SIZE))
        if len(obj.functions) > MAX_STACK_PROGRAMS:
            # The reference writes such fds over the end of its frame, and no kernel takes that.
            self._kept_fds = emitter.add_data(bytes(4 * len(functions)))
        count = len(obj.functions) if self._kept_fds is None else len(functions)
        emitter.prologue(count, len(obj.maps), self._kept_fds)
        emit_check = CHECKS.get(self._scheme.name)
        check = emit_check(emitter) if emit_check else None
        self._load_btf()
        for number, spec in enumerate(obj.maps):
            self._create_map(spec, number)
        programs = []
        room = _code_size(obj) + MAX_GROWTH
        for number, function in enumerate(functions):
            program = link(obj, function)
            room -= program.size
            if room < 0:
                raise UnsupportedError(
                    f"the programs with their subprograms grow by more than {MAX_GROWTH} bytes",
                    where=f"program '{function.name}'",
                    hint="split the object",
                )
            self._load_program(program, number)
            programs.append(_program_entry(program))
        self._fill_program_arrays()
        self._finish(len(functions))
        loader = Loader(
            scheme_name=self._scheme.name,
            name=obj.name,
            insns=b"",
            metadata=bytes(emitter.data),
            btf=LOADER_BTF if self._scheme.has_loader_btf else b"",
            maps=_map_entries(obj.maps),
            programs=tuple(programs),
            byteorder=obj.byteorder,
        )
        if check:
            check.fill(emitter, loader.metadata_digest)
        return replace(loader, insns=emitter.encode())

    def _pack(self, layout: attr.AttrLayout, last: str, **values: int | bytes) -> int:
        """Add an attribute that ends behind field `last` to the blob and return its offset."""
        packed = layout.pack(size=layout.end(last), byteorder=self._obj.byteorder, **values)
        return self._emitter.add_data(packed)

    def _log_from_ctx(self, at: int, layout: attr.AttrLayout, prefix: str) -> None:
        """Take the log that the host wants from the context."""
        for name, size, ctx_offset in steps.CTX_LOG:
            offset = at + layout.offset(prefix + name)
            self._emitter.ctx_to_blob(offset, size, ctx_offset, unless_zero=False)

    def _load_btf(self) -> None:
        if self._obj.btf is None:
            return
        emitter, layout, raw = self._emitter, attr.BTF_LOAD, self._obj.btf.raw
        data = emitter.add_data(raw)
        at = self._pack(layout, "btf_log_level", btf_size=len(raw))
        self._log_from_ctx(at, layout, "btf_")
        emitter.store_blob_address(at + layout.offset("btf"), data)
        emitter.sys_bpf(Cmd.BTF_LOAD, at, layout.end("btf_log_level"))
        emitter.trace_result(f"btf_load size {len(raw)}")
        emitter.check_result()
        emitter.result_to_stack(emitter.frame.btf_fd)

    # Maps

    def _create_map(self, spec: MapSpec, number: int) -> None:
        if spec.inner:
            self._emit_map_create(spec.inner, None)
        self._emit_map_create(spec, number)
        if spec.initial_value is not None:
            self._fill_map(number, spec.initial_value)
            if spec.source.is_read_only:
                self._freeze_map(number)
        if spec.type in _MAP_IN_MAP:
            for slot, target in spec.slots:
                self._fill_slot(number, slot, self._emitter.fd_array_offset(target), target)

    def _emit_map_create(self, spec: MapSpec, number: int | None) -> None:
        """Emit BPF_MAP_CREATE; `number` is ``None`` for the pattern of inner maps."""
        emitter, layout = self._emitter, attr.MAP_CREATE
        at = self._pack(
            layout,
            "map_extra",
            map_type=spec.type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            map_flags=spec.flags,
            numa_node=spec.numa_node,
            map_name=spec.name.encode(),
            btf_key_type_id=spec.btf_key_type_id if self._obj.btf else 0,
            btf_value_type_id=spec.btf_value_type_id if self._obj.btf else 0,
            map_extra=spec.map_extra,
        )
        if spec.btf_value_type_id:
            emitter.stack_to_blob(at + layout.offset("btf_fd"), emitter.frame.btf_fd)
        is_outer = spec.type in _MAP_IN_MAP
        if is_outer:
            emitter.stack_to_blob(at + layout.offset("inner_map_fd"), emitter.frame.inner_map_fd)
        if number is not None and self._scheme.copies_host_values:
            desc = CTX_HEADER_SIZE + MAP_DESC_SIZE * number
            offset = at + layout.offset("max_entries")
            emitter.ctx_to_blob(offset, 4, desc + steps.DESC_MAX_ENTRIES, unless_zero=True)
        emitter.sys_bpf(Cmd.MAP_CREATE, at, layout.end("map_extra"))
        emitter.trace_result(
            f"map_create {spec.name} idx {-1 if number is None else number} type {spec.type} "
            f"value_size {spec.value_size} value_btf_id {spec.btf_value_type_id}"
        )
        emitter.check_result()
        if number is None:
            emitter.result_to_stack(emitter.frame.inner_map_fd)
        else:
            emitter.result_to_blob(emitter.fd_array_offset(number))
        if is_outer:
            emitter.close_stack_fd(emitter.frame.inner_map_fd)

    def _update(self, number: int, key: int, value: int, at: int, trace: str) -> None:
        """Emit BPF_MAP_UPDATE_ELEM with key, value and attribute at these offsets of the blob."""
        emitter, layout = self._emitter, attr.MAP_ELEM
        source = emitter.fd_array_offset(number)
        emitter.blob_to_blob(at + layout.offset("map_fd"), 4, source)
        emitter.store_blob_address(at + layout.offset("key"), key)
        emitter.store_blob_address(at + layout.offset("value"), value)
        emitter.sys_bpf(Cmd.MAP_UPDATE_ELEM, at, layout.size)
        emitter.trace_result(trace)
        emitter.check_result()

    def _fill_map(self, number: int, data: bytes) -> None:
        """Set the contents of a global data map, which the host may replace in some schemes."""
        value = self._emitter.add_data(data)
        key = self._emitter.add_data(bytes(4))
        if self._scheme.copies_host_values:
            self._value_from_host(number, value, len(data))
        at = self._pack(attr.MAP_ELEM, "flags")
        self._update(number, key, value, at, f"update_elem idx {number} value_size {len(data)}")

    def _value_from_host(self, number: int, value: int, size: int) -> None:
        desc = CTX_HEADER_SIZE + MAP_DESC_SIZE * number
        steps.take_value_from_host(self._emitter, desc + steps.DESC_INITIAL_VALUE, value, size)

    def _freeze_map(self, number: int) -> None:
        emitter = self._emitter
        at = self._pack(attr.MAP_FREEZE, "map_fd")
        emitter.blob_to_blob(at, 4, emitter.fd_array_offset(number))
        emitter.sys_bpf(Cmd.MAP_FREEZE, at, attr.MAP_FREEZE.size)
        emitter.trace_result("map_freeze")
        emitter.check_result()

    def _fill_slot(self, number: int, slot: int, value: int, target: int) -> None:
        """Put the fd at an offset of the blob into a slot of a map of maps or programs."""
        key = self._emitter.add_data(slot.to_bytes(4, self._obj.byteorder))
        at = self._pack(attr.MAP_ELEM, "flags")
        trace = f"populate_outer_map outer {number} key {slot} inner {target}"
        self._update(number, key, value, at, trace)

    def _fill_program_arrays(self) -> None:
        """Put programs into the slots that the object declares.

        The reference generator refuses such objects; user space would fill the array.
        """
        emitter = self._emitter
        for number, spec in enumerate(self._obj.maps):
            if spec.type != MapType.PROG_ARRAY:
                continue
            for slot, target in spec.slots:
                if self._kept_fds is None:
                    value = emitter.add_data(bytes(4))
                    emitter.stack_to_blob(value, emitter.frame.prog_fd(target))
                else:
                    value = self._kept_fds + 4 * target
                self._fill_slot(number, slot, value, target)

    # Programs

    def _add_records(self, records: Sequence[tuple[int, ...]]) -> int:
        words = array("I", chain.from_iterable(records))
        return self._emitter.add_data(to_bytes(words, self._obj.byteorder))

    def _load_program(self, program: LinkedProgram, number: int) -> None:
        emitter, layout, function = self._emitter, attr.PROG_LOAD, program.function
        definition = function.definition
        assert definition  # noqa: S101 (the reader refuses programs without)
        target = _attach_target(function)
        insn_count = len(program.insns) // INSN_SIZE
        license_at, _ = emitter.add_string(self._obj.license)
        insns = emitter.add_data(bytes(program.insns))
        func_info = self._add_records(program.func_info)
        line_info = self._add_records(program.line_info)
        core_relos = self._add_records(program.core_relos)
        at = self._pack(
            layout,
            "core_relo_rec_size",
            prog_type=definition.type,
            insn_cnt=insn_count,
            prog_flags=definition.flags,
            prog_name=function.name.encode(),
            expected_attach_type=definition.attach_type,
            func_info_rec_size=4 * len(program.func_info[0]) if program.func_info else 0,
            func_info_cnt=len(program.func_info),
            line_info_rec_size=4 * len(program.line_info[0]) if program.line_info else 0,
            line_info_cnt=len(program.line_info),
            # a number that is no target: the loader replaces it by what it finds
            attach_btf_id=1 if target else 0,
            core_relo_cnt=len(program.core_relos),
            core_relo_rec_size=steps.CORE_RELO_SIZE,
        )
        for name, offset in (
            ("license", license_at),
            ("insns", insns),
            ("func_info", func_info),
            ("line_info", line_info),
            ("core_relos", core_relos),
            ("fd_array", 0),
        ):
            emitter.store_blob_address(at + layout.offset(name), offset)
        self._log_from_ctx(at, layout, "")
        emitter.stack_to_blob(at + layout.offset("prog_btf_fd"), emitter.frame.btf_fd)
        if target:
            _, kind = attach_lookup(definition.attach_type)
            emitter.find_by_name(target, kind)
            emitter.check_result()
            steps.keep_attach_target(emitter, at)
        ksyms = KsymEmitter(emitter)
        ksyms.relocate(program.extern_uses, self._obj.externs, insns)
        emitter.sys_bpf(Cmd.PROG_LOAD, at, layout.end("core_relo_rec_size"))
        # the reference prints the number as the attribute holds it
        count = int.from_bytes(insn_count.to_bytes(4, self._obj.byteorder), "little", signed=True)
        emitter.trace_result(f"prog_load {function.name[: OBJ_NAME_LEN - 1]} insn_cnt {count}")
        ksyms.close()
        if target:
            emitter.close_blob_fd(at + layout.offset("attach_btf_obj_fd"))
        emitter.check_result()
        if self._kept_fds is None:
            emitter.result_to_stack(emitter.frame.prog_fd(number))
        else:
            emitter.result_to_blob(self._kept_fds + 4 * number)

    def _finish(self, program_count: int) -> None:
        """Hand the fds back in the context and return 0."""
        emitter = self._emitter
        emitter.close_stack_fd(emitter.frame.btf_fd)
        programs = CTX_HEADER_SIZE + MAP_DESC_SIZE * len(self._obj.maps)
        for number in range(program_count):
            ctx_offset = programs + PROG_DESC_SIZE * number
            if self._kept_fds is None:
                emitter.stack_to_ctx(ctx_offset, emitter.frame.prog_fd(number))
            else:
                emitter.blob_to_ctx(ctx_offset, self._kept_fds + 4 * number)
        for number in range(len(self._obj.maps)):
            ctx_offset = CTX_HEADER_SIZE + MAP_DESC_SIZE * number
            emitter.blob_to_ctx(ctx_offset, emitter.fd_array_offset(number))
        steps.leave(emitter)


def _code_size(obj: BpfObject) -> int:
    """Return the bytes of all functions and of the records about them, each counted once."""
    code = {(f.section_index, f.section_insn): len(f.insns) for f in obj.functions}
    return sum(code.values()) + (obj.btf_ext.size if obj.btf_ext else 0)


def _attach_target(function: Function) -> str:
    """Return the name that the loader looks up in the kernel's BTF, or ``""``.

    Raises:
        UnsupportedError: the section names no target, or one that is not in the kernel.
    """
    definition = function.definition
    if definition is None or not definition.attach_btf:
        return ""
    where = f"program '{function.name}'"
    name = function.section.partition("/")[2]
    if not name:
        raise UnsupportedError(
            f"section '{function.section}' names no attach target",
            where=where,
            hint=f'write SEC("{function.section.partition("/")[0]}/TARGET")',
        )
    if definition.type == ProgType.EXT:
        raise UnsupportedError(
            "it replaces a function of another loaded program, which only user space can name",
            where=where,
        )
    prefix, _ = attach_lookup(definition.attach_type)
    if len(prefix + name) > _MAX_ATTACH_TARGET:
        raise UnsupportedError(
            f"its attach target is longer than {_MAX_ATTACH_TARGET}", where=where
        )
    return prefix + name


def _map_entries(maps: Sequence[MapSpec]) -> tuple[MapEntry, ...]:
    """Return the entries, with identifiers that are all different.

    ``.data.a_b`` and ``.data.a.b`` would be the same identifier; a later one gets a number.
    """
    entries: dict[str, MapEntry] = {}
    for spec in maps:
        ident = stem = _ident(spec)
        number = 1
        while ident in entries:
            number += 1
            ident = f"{stem}_{number}"
        entries[ident] = MapEntry(
            name=spec.name[: OBJ_NAME_LEN - 1],
            ident=ident,
            type=spec.type,
            key_size=spec.key_size,
            value_size=spec.value_size,
            max_entries=spec.max_entries,
            flags=spec.flags,
            has_initial_value=spec.initial_value is not None,
        )
    return tuple(entries.values())


def _ident(spec: MapSpec) -> str:
    """Return a map's name as an identifier: the section's for global data.

    Source: ``get_map_ident`` in tools/bpf/bpftool/gen.c.
    """
    if spec.source is MapSource.DEFINED:
        return spec.name
    tail = spec.name[spec.name.index(spec.source.value) + 1 :]
    return "".join(c if c.isalnum() else "_" for c in tail)


def _program_entry(program: LinkedProgram) -> ProgramEntry:
    function = program.function
    definition = function.definition
    assert definition  # noqa: S101 (the reader refuses programs without)
    return ProgramEntry(
        name=function.name,
        section=function.section,
        type=definition.type,
        attach_type=definition.attach_type,
        attach_target=_attach_target(function),
        insn_count=len(program.insns) // INSN_SIZE,
    )
