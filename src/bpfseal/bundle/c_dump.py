"""C declarations of a section's variables, character by character as libbpf prints them.

A light skeleton overlays each section of global data with a struct. Its members follow from the
BTF that the loader carries, so they are written here once more, and a header that says something
else is refused. (For the project's own skeletons see `bpfseal.bundle.c_types`.)

Pieces of text go to a sink as they come up, which may stop the writing by raising: types share
their parts, so that what they print has no bound of its own.

Source: ``codegen_datasec_def`` and ``codegen_asserts`` in tools/bpf/bpftool/gen.c;
``btf_dump__emit_type_decl`` in tools/lib/bpf/btf_dump.c, with `strip_mods`.

Example:
    >>> from bpfseal.btf.builder import BtfBuilder
    >>> builder = BtfBuilder()
    >>> pointer = builder.add_ptr(builder.add_int("char", 1, signed=True))
    >>> parts = []
    >>> btf = Btf.from_bytes(builder.encode())
    >>> CDump(btf, DIALECTS[0], parts.append).declare(pointer, "comm", 2)
    >>> "".join(parts)
    'char *comm'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.kinds import ENUMS, Kind, Linkage
from bpfseal.bundle.c_layout import (
    MAX_NESTING,
    Alignments,
    fields_of,
    paddings,
)
from bpfseal.bundle.c_words import is_member_name, is_type_name
from bpfseal.errors import InputError

_QUALIFIERS: Final = {Kind.CONST: "const", Kind.VOLATILE: "volatile", Kind.RESTRICT: "restrict"}
_STRIPPED: Final = frozenset({*_QUALIFIERS, Kind.TYPE_TAG})
_DECLARATORS: Final = frozenset({*_STRIPPED, Kind.PTR, Kind.ARRAY, Kind.FUNC_PROTO})
_MAX_CHAIN: Final = 2 * MAX_NESTING
_MAX_TABS: Final = 13
_MAX_IDENT: Final = 255
_SMALLEST_LONG: Final = 4
"""Alignment that is reckoned with in a section: a header may be compiled for 32 bits."""

_BASE_WORDS: Final = frozenset(
    {"char", "short", "int", "long", "signed", "unsigned", "float", "double"}
    | {"_Bool", "bool", "__int128"}
)
_SECTIONS: Final = (".data", ".rodata", ".bss", ".kconfig")
_SECTION_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between releases of libbpf.

    Attributes:
        enum_modes: enums of 1 and 8 bytes get a mode; not yet in libbpf 1.1 (bpftool 7.1).
    """

    enum_modes: bool


DIALECTS: Final = (Dialect(enum_modes=True), Dialect(enum_modes=False))
"""The dialects that there are: of bpftool 7.8, and of bpftool 7.1."""


def section_ident(name: str) -> str:
    """Return the member that stands for a section of global data, or ``""``."""
    return sanitized(name[1:]) if name.startswith(_SECTIONS) else ""


def sanitized(name: str) -> str:
    """Return a name as C takes it, as the reference tool makes it."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def data_sections(btf: Btf) -> dict[str, BtfType]:
    """Return the first DATASEC that each member may stand for."""
    found: dict[str, BtfType] = {}
    for section in btf.types_of_kind(Kind.DATASEC):
        if ident := section_ident(section.name):
            found.setdefault(ident, section)
    return found


@dataclass(frozen=True, slots=True)
class SectionVariable:
    """A variable that a skeleton shows: its name in C, its type, and where it lies, in bytes."""

    ident: str
    type_id: int
    offset: int
    size: int


def shown_variables(btf: Btf, section: BtfType) -> Iterator[SectionVariable]:
    """Yield the variables of a section that are not static.

    Raises:
        InputError: one of them is no variable, or cannot be named in C.
    """
    for info in btf.secinfos(section.id):
        if btf.kind_of(info.type_id) is not Kind.VAR:
            raise InputError(f"section {section.name} holds no variable", where=".BTF")
        if btf.extra_word(info.type_id) == Linkage.STATIC:
            continue
        variable = btf.type_by_id(info.type_id)
        ident = sanitized(variable.name)[:_MAX_IDENT]
        if not is_member_name(ident):
            raise InputError(f"variable {variable.name!r} cannot be declared in C", where=".BTF")
        yield SectionVariable(ident, variable.third, info.offset, info.size)


@dataclass(slots=True)
class CDump:
    """Writes declarations. Its state is that of one run of the reference tool.

    Attributes:
        btf: the types.
        dialect: the release of libbpf.
        put: takes the text piece by piece.
    """

    btf: Btf
    dialect: Dialect
    put: Callable[[str], None]
    _strips: bool = True
    _alignments: Alignments = field(init=False)
    _tags: dict[str, int] = field(default_factory=dict)
    _idents: dict[str, int] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    _depth: int = 0

    def __post_init__(self) -> None:
        self._alignments = Alignments(self.btf)

    def section(self, section: BtfType) -> None:
        """Write the members of the struct that overlays a section.

        Raises:
            InputError: the reference tool refuses such a section, or a name is none in C.
        """
        self._strips = section.name != ".kconfig"
        at = paddings = 0
        for variable in shown_variables(self.btf, section):
            if at > variable.offset:
                raise InputError(f"variable {variable.ident!r} is misplaced", where=".BTF")
            alignment = min(self._alignments.of(variable.type_id), _SMALLEST_LONG)
            if -(-at // alignment) * alignment != variable.offset:
                self.put(f"\t\tchar __pad{paddings}[{variable.offset - at}];\n")
                paddings += 1
            self.put("\t\t")
            self.declare(variable.type_id, variable.ident, _SECTION_LEVEL)
            self.put(";\n")
            at = variable.offset + variable.size

    def declare(self, type_id: int, name: str, level: int) -> None:
        """Write the declaration of a name: from the type in its middle outwards.

        Raises:
            InputError: a type that C has no declaration for, or one nested too deeply.
        """
        chain = self._chain(type_id)
        base = chain.pop()
        while chain and chain[-1].kind in _QUALIFIERS:
            self.put(f"{_QUALIFIERS[chain.pop().kind]} ")
        self._base(base, level)
        behind: list[tuple[BtfType, bool]] = []
        touches = False  # whatever comes next needs no space in front
        while chain:
            link = chain.pop()
            if link.kind is Kind.PTR:
                self.put("*" if touches else " *")
                touches = True
            elif link.kind in _QUALIFIERS:
                self.put(f" {_QUALIFIERS[link.kind]}")
                touches = False
            else:
                while chain and chain[-1].kind in _STRIPPED:
                    chain.pop()
                behind.append((link, self._opens(link, chain, touches=touches or not name)))
                touches = True
        self.put(name if touches or not name else f" {name}")
        while behind:
            link, is_open = behind.pop()
            self.put(")" if is_open else "")
            if link.kind is Kind.ARRAY:
                self.put(f"[{self.btf.extra_word(link.id, 2)}]")
            else:
                self._parameters(link, level)

    def _chain(self, type_id: int) -> list[BtfType]:
        """Return the types from that of the name to the one that is printed first."""
        chain: list[BtfType] = []
        while len(chain) < _MAX_CHAIN:
            link = self.btf.type_by_id(type_id)
            if link.kind is Kind.TYPE_TAG and not self._strips:
                break
            if link.kind not in _STRIPPED or not self._strips:
                chain.append(link)
            if link.kind not in _DECLARATORS:
                return chain
            type_id = self.btf.extra_word(link.id) if link.kind is Kind.ARRAY else link.third
        raise InputError(f"type {type_id} has no declaration in C", where=".BTF")

    def _opens(self, link: BtfType, outer: list[BtfType], *, touches: bool) -> bool:
        """Write what stands between an element or result and the rest; whether it is a bracket."""
        if link.kind is Kind.FUNC_PROTO:
            is_open = bool(outer)
            self.put(" (" if is_open else "" if touches else " ")
            return is_open
        is_open = bool(outer) and outer[-1].kind is not Kind.ARRAY
        self.put(("" if touches else " ") + ("(" if is_open else ""))
        return is_open

    def _parameters(self, prototype: BtfType, level: int) -> None:
        parameters = list(self.btf.entries(prototype.id))
        self.put("(")
        if not parameters or (len(parameters) == 1 and not parameters[0][1]):
            self.put("void")
            parameters = []
        for number, (name, type_id) in enumerate(parameters):
            self.put(", " if number else "")
            if not type_id and number == len(parameters) - 1:
                self.put("...")
                break
            self._nested(type_id, self._member(self.btf.string(name)), level)
        self.put(")")

    def _nested(self, type_id: int, name: str, level: int) -> None:
        if self._depth == MAX_NESTING:
            raise InputError(f"the type of {name!r} is nested too deeply", where=".BTF")
        self._depth += 1
        self.declare(type_id, name, level)
        self._depth -= 1

    # The type in the middle

    def _base(self, base: BtfType, level: int) -> None:
        match base.kind:
            case Kind.VOID:
                self.put("void")
            case Kind.INT | Kind.FLOAT:
                words = base.name.split(" ")
                self.put(base.name if set(words) <= _BASE_WORDS else self._type(base.name))
            case Kind.TYPEDEF:
                self.put(self._unique(base, self._idents))
            case Kind.FWD:
                self.put(f"{'union' if base.kind_flag else 'struct'} {self._type(base.name)}")
            case Kind.STRUCT | Kind.UNION:
                self.put("struct" if base.kind is Kind.STRUCT else "union")
                if base.name:
                    self.put(f" {self._unique(base, self._tags)}")
                else:
                    self._struct(base, level)
            case Kind.ENUM | Kind.ENUM64:
                self.put("enum")
                if base.name:
                    self.put(f" {self._unique(base, self._tags)}")
                else:
                    self._enum(base, level)
            case _:
                raise InputError(f"type {base.id} has no declaration in C", where=".BTF")

    def _unique(self, base: BtfType, known: dict[str, int]) -> str:
        """Return the name of a type; different types of one name get numbers."""
        if base.id not in self._names:
            name = self._type(base.name)
            is_counted = base.kind not in ENUMS or base.vlen
            self._names[base.id] = self._counted(name, known) if is_counted else name
        return self._names[base.id]

    @staticmethod
    def _counted(name: str, known: dict[str, int]) -> str:
        known[name] = known.get(name, 0) + 1
        return name if known[name] == 1 else f"{name}___{known[name]}"

    @staticmethod
    def _type(name: str) -> str:
        if not is_type_name(name):
            raise InputError(f"type {name!r} cannot be named in C", where=".BTF")
        return name

    @staticmethod
    def _member(name: str) -> str:
        if name and not is_member_name(name):
            raise InputError(f"{name!r} cannot be declared in C", where=".BTF")
        return name

    def _struct(self, base: BtfType, level: int) -> None:
        """Write the body of a struct without a name."""
        is_packed = base.kind is Kind.STRUCT and self._alignments.is_packed(base)
        at, was_bitfield = 0, False
        self.put(" {")
        for each in fields_of(self.btf, base):
            alignment = 1 if is_packed else self._alignments.of(each.type_id)
            in_bitfield = was_bitfield and bool(each.bits)
            self._pad(
                paddings(at, each.offset, alignment=alignment, in_bitfield=in_bitfield), level
            )
            self.put(f"\n{_indentation(level + 1)}")
            self._nested(each.type_id, self._member(each.name), level + 1)
            self.put(f": {each.bits};" if each.bits else ";")
            at = each.offset + (each.bits or 8 * self._size(each.type_id))
            was_bitfield = bool(each.bits)
        if base.kind is Kind.STRUCT:
            alignment = self._alignments.of(base.id)
            end = 8 * base.third
            self._pad(paddings(at, end, alignment=alignment, in_bitfield=False), level)
        if base.vlen or base.third:
            self.put(f"\n{_indentation(level)}")
        self.put("} __attribute__((packed))" if is_packed else "}")

    def _pad(self, bitfields: Iterator[str], level: int) -> None:
        for bitfield in bitfields:
            self.put(f"\n{_indentation(level + 1)}{bitfield};")

    def _size(self, type_id: int) -> int:
        try:
            return self.btf.resolve_size(type_id)
        except InputError:
            return 0  # an array at the end whose elements have no size

    def _enum(self, base: BtfType, level: int) -> None:
        """Write the body of an enum without a name."""
        inner = _indentation(level + 1)
        is_wide = base.kind is Kind.ENUM64
        bits, suffix = (64, "LL" if base.kind_flag else "ULL") if is_wide else (32, "")
        if not base.vlen:
            raise InputError(f"type {base.id} is an enum without name and values", where=".BTF")
        self.put(" {")
        largest = 0
        for offset, *halves in self.btf.entries(base.id):
            value = sum(half << 32 * number for number, half in enumerate(halves))
            largest = max(largest, value)
            if base.kind_flag and value >> bits - 1:
                value -= 1 << bits
            name = self._counted(self._enumerator(self.btf.string(offset)), self._idents)
            self.put(f"\n{inner}{name} = {value}{suffix},")
        self.put(f"\n{_indentation(level)}}}")
        mode = {1: "byte", 8: "word" if largest < 1 << 32 else ""}.get(base.third, "")
        if mode and not self.dialect.enum_modes:
            raise InputError(
                f"type {base.id} is an enum of {base.third} bytes, which old releases of the tool "
                "declare with another size: compilers would place what is behind it elsewhere",
                where=".BTF",
            )
        if mode:
            self.put(f" __attribute__((mode({mode})))")

    def _enumerator(self, name: str) -> str:
        if not name:
            raise InputError("an enumerator without a name", where=".BTF")
        return self._member(name)


def _indentation(level: int) -> str:
    return "\t" * min(level, _MAX_TABS)
