"""The example object: what a compiler makes, read as its source says."""

from __future__ import annotations

from bpfseal.bpf.uapi import MapFlag, MapType
from bpfseal.object import read_object
from bpfseal.object.model import MapSource, RelocationKind
from support.files import EXAMPLE

OBJECT = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)


def test_its_programs_and_subprogram_are_found() -> None:
    assert (OBJECT.name, OBJECT.byteorder, OBJECT.license) == (
        "exectrace_bpf",
        "little",
        "Dual BSD/GPL",
    )
    assert [(f.name, f.section) for f in OBJECT.programs] == [
        ("on_exec", "tp_btf/sched_process_exec"),
        ("on_exit", "tp_btf/sched_process_exit"),
    ]
    assert [f.name for f in OBJECT.functions if f.is_subprogram] == ["report"]


def test_its_maps_are_found() -> None:
    assert [(m.name, m.source, m.type, m.max_entries) for m in OBJECT.maps] == [
        ("started", MapSource.DEFINED, MapType.HASH, 8192),
        ("events", MapSource.DEFINED, MapType.RINGBUF, 256 * 1024),
        ("exectrac.rodata", MapSource.RODATA, MapType.ARRAY, 1),
        ("exectrac.bss", MapSource.BSS, MapType.ARRAY, 1),
    ]
    assert OBJECT.maps[2].flags == MapFlag.RDONLY_PROG | MapFlag.MMAPABLE
    assert OBJECT.maps[3].initial_value == bytes(16)


def test_its_references_are_found() -> None:
    on_exec, on_exit = OBJECT.programs
    assert [(r.kind, r.target) for r in on_exec.relocations] == [
        (RelocationKind.DATA, 3),
        (RelocationKind.MAP, 0),
    ]
    assert RelocationKind.SUBPROGRAM_CALL in {r.kind for r in on_exit.relocations}


def test_its_btf_ext_describes_each_function() -> None:
    assert OBJECT.btf_ext
    for function in OBJECT.functions:
        assert OBJECT.btf_ext.func_info.records_of(function.elf_section)
        assert OBJECT.btf_ext.line_info.records_of(function.elf_section)
    assert OBJECT.btf_ext.core_relos.records_of(".text")
