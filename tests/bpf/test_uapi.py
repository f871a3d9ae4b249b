"""Constants and layouts against the kernel headers of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum, IntFlag

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import AttrLayout
from bpfseal.bpf.uapi import AttachType, Cmd, Helper, MapFlag, MapType, ProgFlag, ProgType
from bpfseal.btf.kinds import INT_BOOL, INT_CHAR, INT_SIGNED, Kind, Linkage
from support.uapi import evaluate, header, skip_if_missing

from .test_attr import LAYOUTS

NESTED = {
    "PROG_RUN": "test.",
    "OBJ_GET_INFO_BY_FD": "info.",
    "LINK_CREATE": "link_create.",
    "RAW_TRACEPOINT_OPEN": "raw_tracepoint.",
    "LINK_DETACH": "link_detach.",
    "ITER_CREATE": "iter_create.",
    "PROG_BIND_MAP": "prog_bind_map.",
}
"""Members of the union that hold the fields of a command; other fields have no prefix."""

TYPES = {
    f"{name}_INFO": f"struct bpf_{name.lower()}_info" for name in ("MAP", "PROG", "BTF", "LINK")
}
"""Types of the layouts that are no part of ``union bpf_attr``."""

ENUMS: tuple[tuple[type[IntEnum | IntFlag], str], ...] = (
    (Cmd, "BPF_"),
    (MapType, "BPF_MAP_TYPE_"),
    (ProgType, "BPF_PROG_TYPE_"),
    (AttachType, "BPF_"),
    (MapFlag, "BPF_F_"),
    (ProgFlag, "BPF_F_"),
)

CLASSES = ("LD", "LDX", "ST", "STX", "ALU", "JMP", "JMP32", "ALU64")
OPCODES = {
    name: value
    for name, value in vars(op).items()
    if name.isupper() and isinstance(value, int) and name not in ("LD_IMM64", *CLASSES)
}


def has(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def check(file: str, constants: Mapping[str, int]) -> None:
    """Compare constants with those of a header, which may be too old for some."""
    text = header(file)
    known = {name: value for name, value in constants.items() if has(text, name)}
    assert known
    assert evaluate(file, {name: name for name in known}) == known
    skip_if_missing(file, [name for name in constants if name not in known])


@pytest.mark.parametrize("command", LAYOUTS)
def test_every_attr_field_has_the_offset_size_and_sign_of_the_header(command: str) -> None:
    layout: AttrLayout = LAYOUTS[command]
    kind = TYPES.get(command, "union bpf_attr")
    text = header("bpf.h").partition(f"\n{kind} {{")[2].partition("\n}")[0]
    prefix = NESTED.get(command, "")
    if prefix:
        text = text.partition(f"\n\t}} {prefix[:-1]};")[0].rpartition("\n\tstruct {")[2]
    expected: dict[str, int] = {}
    expressions: dict[str, str] = {}
    for name, field in layout.fields.items():
        if not re.search(rf"\b{name}(\[\w+\])?;", text):
            continue
        place = f"(({kind} *)0)->{prefix}{name}"
        expected |= {f"{name} offset": field.offset, f"{name} size": field.size}
        expressions[f"{name} offset"] = f"offsetof({kind}, {prefix}{name})"
        expressions[f"{name} size"] = f"sizeof({place})"
        if not field.is_bytes:
            expected[f"{name} signed"] = field.signed
            expressions[f"{name} signed"] = f"(__typeof__({place}))-1 < 0"
    assert evaluate("bpf.h", expressions) == expected
    skip_if_missing("bpf.h", [name for name in layout.fields if f"{name} size" not in expected])


@pytest.mark.parametrize(("enum", "prefix"), ENUMS, ids=[enum.__name__ for enum, _ in ENUMS])
def test_every_enum_has_the_numbers_of_the_header(
    enum: type[IntEnum | IntFlag], prefix: str
) -> None:
    check("bpf.h", {prefix + name: value for name, value in enum.__members__.items()})


def test_helpers_have_the_numbers_of_the_header() -> None:
    text = header("bpf.h")
    numbers = {f"BPF_FUNC_{member.name.lower()}": member.value for member in Helper}
    assert all(has(text, name.removeprefix("BPF_FUNC_")) for name in numbers)
    assert evaluate("bpf.h", {name: name for name in numbers}) == numbers


@pytest.mark.parametrize(
    "names",
    [
        CLASSES,
        tuple(name for name in OPCODES if not name.startswith("PSEUDO_")),
        tuple(name for name in OPCODES if name.startswith("PSEUDO_") and "PROG_BTF" not in name),
    ],
    ids=["classes", "operations", "pseudo sources"],
)
def test_opcodes_are_those_of_the_header(names: tuple[str, ...]) -> None:
    # PSEUDO_KFUNC_CALL_PROG_BTF is in no released header; the classes are in bpf_common.h.
    spelled = {f"BPF_{name}": getattr(op, name) for name in names}
    known = header("bpf.h") + header("bpf_common.h")
    there = {name: value for name, value in spelled.items() if has(known, name)}
    assert evaluate("bpf.h", {name: name for name in there}) == there
    skip_if_missing("bpf.h", [name for name in spelled if name not in there])


def test_btf_kinds_are_those_of_the_header() -> None:
    kinds = {f"BTF_KIND_{kind.name}": kind.value for kind in Kind if kind is not Kind.VOID}
    check("btf.h", kinds)


def test_btf_linkage_and_encodings_are_those_of_the_header() -> None:
    check(
        "btf.h",
        {
            "BTF_FUNC_STATIC": Linkage.STATIC,
            "BTF_FUNC_GLOBAL": Linkage.GLOBAL,
            "BTF_FUNC_EXTERN": Linkage.EXTERN,
            "BTF_VAR_STATIC": Linkage.STATIC,
            "BTF_VAR_GLOBAL_ALLOCATED": Linkage.GLOBAL,
            "BTF_VAR_GLOBAL_EXTERN": Linkage.EXTERN,
            "BTF_INT_SIGNED": INT_SIGNED,
            "BTF_INT_CHAR": INT_CHAR,
            "BTF_INT_BOOL": INT_BOOL,
        },
    )
