"""C declarations of global data, from the BTF that describes its sections.

Named structs and unions are referred to by name: the program that includes the header has their
definition, as it has that of the BPF side. Typedefs and enums become the integers that they are,
so that nothing else is needed.

Example:
    >>> from bpfseal.btf.builder import BtfBuilder
    >>> builder = BtfBuilder()
    >>> number = builder.add_int("char", 1, signed=True)
    >>> declare(Btf.from_bytes(builder.encode()), number, "letter")
    'char letter'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import INT_BOOL, INT_SIGNED, Kind, Linkage
from bpfseal.errors import InputError

_KEYWORDS: Final = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "_Alignas",
        "_Alignof",
        "_Atomic",
        "_Bool",
        "_Complex",
        "_Generic",
        "_Imaginary",
        "_Noreturn",
        "_Static_assert",
        "_Thread_local",
        "bool",
        "true",
        "false",
    ]
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BASE_WORDS: Final = frozenset({"char", "short", "int", "long", "signed", "unsigned"})
"""The words of C's integer types: an INT named with them is printed as it is."""

_MAX_DEPTH: Final = 16
_MAX_MEMBERS: Final = 4096
"""The most members of anonymous structs that one variable may have."""

_MAX_SECTION_MEMBERS: Final = 16 * _MAX_MEMBERS
"""The most that all variables of a section may have: they may share their types, too."""

_MAX_NAME: Final = 511
"""Bytes of a name in the BTF of a kernel's program (KSYM_NAME_LEN, with the zero)."""


@dataclass(slots=True)
class _Budget:
    """What is left to print: types may share their parts, so depth alone bounds nothing."""

    section: int = _MAX_SECTION_MEMBERS
    members: int = _MAX_MEMBERS

    def take(self, count: int) -> None:
        """Take members of an anonymous struct.

        Raises:
            InputError: more than the variable, or the section, may have.
        """
        self.members -= count
        self.section -= count
        if self.members < 0:
            raise InputError(f"more than {_MAX_MEMBERS} members in a variable", where=".BTF")
        if self.section < 0:
            raise InputError(f"more than {_MAX_SECTION_MEMBERS} members in a section", where=".BTF")


def is_identifier(text: str) -> bool:
    """Whether a text can stand as a name in C, and in a kernel's BTF."""
    return len(text) <= _MAX_NAME and bool(_IDENTIFIER.fullmatch(text)) and text not in _KEYWORDS


@dataclass(frozen=True, slots=True)
class Variable:
    """A member of the struct that overlays a section: its C declaration and where it lies."""

    name: str
    declaration: str
    offset: int
    size: int


def section_variables(btf: Btf, type_id: int, size: int) -> tuple[Variable, ...]:
    """Return the variables of a section that other files can see, with padding in between.

    Args:
        btf: the object's BTF.
        type_id: a DATASEC.
        size: the bytes of the section.

    Raises:
        InputError: variables that overlap, lie outside, or cannot be declared.
    """
    variables: list[Variable] = []
    names: set[str] = set()
    budget = _Budget()
    end = 0
    for info in sorted(btf.secinfos(type_id), key=lambda info: info.offset):
        if btf.kind_of(info.type_id) is not Kind.VAR:
            raise InputError(f"section type {type_id} holds no variable", where=".BTF")
        if btf.extra_word(info.type_id) == Linkage.STATIC:
            continue
        var = btf.type_by_id(info.type_id)
        if not is_identifier(var.name) or var.name in names:
            raise InputError(f"variable {var.name!r} cannot be declared in C", where=".BTF")
        if info.offset < end or info.offset + info.size > size:
            raise InputError(f"variable {var.name!r} is misplaced", where=".BTF")
        if btf.resolve_size(var.third) != info.size:
            raise InputError(f"variable {var.name!r} has another size than its type", where=".BTF")
        if info.offset > end:
            variables.append(_padding(len(variables), end, info.offset - end))
        names.add(var.name)
        budget.members = _MAX_MEMBERS
        declaration = _declare(btf, var.third, var.name, budget, 0)
        variables.append(Variable(var.name, declaration, info.offset, info.size))
        end = info.offset + info.size
    return tuple(variables)


def _padding(number: int, offset: int, size: int) -> Variable:
    name = f"__pad{number}"
    return Variable(name, f"char {name}[{size}]", offset, size)


def declare(btf: Btf, type_id: int, name: str) -> str:
    """Return the C declaration of a variable, without a semicolon.

    Raises:
        InputError: a type without size, or one too large to print.
    """
    return _declare(btf, type_id, name, _Budget(), 0)


def _declare(btf: Btf, type_id: int, name: str, budget: _Budget, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise InputError(f"the type of {name!r} is nested too deeply", where=".BTF")
    size = btf.resolve_size(type_id)
    base = btf.skip_modifiers(type_id)
    declarator = name
    while base.kind is Kind.ARRAY:  # ends, because the size could be resolved
        declarator += f"[{btf.extra_word(base.id, 2)}]"
        base = btf.skip_modifiers(btf.extra_word(base.id))
    match base.kind:
        case Kind.INT | Kind.ENUM | Kind.ENUM64 | Kind.FLOAT:
            word = _number(btf, base.id)
        case Kind.PTR:
            word = "void *"
        case Kind.STRUCT | Kind.UNION:
            word = _aggregate(btf, base.id, budget, depth)
        case _:
            word = ""
    if not word:
        return f"unsigned char {name}[{size}]"
    return f"{word}{declarator}" if word.endswith("*") else f"{word} {declarator}"


def _number(btf: Btf, type_id: int) -> str:
    """Return the C type of an INT, ENUM or FLOAT, or ``""`` for one that C does not have."""
    base = btf.type_by_id(type_id)
    if base.kind is Kind.FLOAT:
        return {4: "float", 8: "double"}.get(base.third, "")
    if base.kind is not Kind.INT:
        words = {1: "__s8", 2: "__s16", 4: "int", 8: "__s64"}
        unsigned = {1: "__u8", 2: "__u16", 4: "unsigned int", 8: "__u64"}
        return (words if base.kind_flag else unsigned).get(base.third, "")
    word = btf.extra_word(type_id)
    encoding, bit_offset, bits = word >> 24 & 0xF, word >> 16 & 0xFF, word & 0xFF
    if bit_offset or bits != 8 * base.third:
        return ""
    if encoding & INT_BOOL:
        return "bool" if base.third == 1 else ""
    if set(base.name.split()) <= _BASE_WORDS and base.name.strip():
        return base.name
    sign = "s" if encoding & INT_SIGNED else "u"
    return f"__{sign}{bits}" if bits in (8, 16, 32, 64) else ""


def _aggregate(btf: Btf, type_id: int, budget: _Budget, depth: int) -> str:
    """Return the C type of a STRUCT or UNION, or ``""`` for one that is carried as bytes."""
    base = btf.type_by_id(type_id)
    word = "struct" if base.kind is Kind.STRUCT else "union"
    if base.name:
        if not is_identifier(base.name):
            raise InputError(f"{word} {base.name!r} cannot be named in C", where=".BTF")
        return f"{word} {base.name}"
    if base.kind_flag:
        return ""  # bitfields lie as the compiler likes
    budget.take(base.vlen)
    members = btf.members(type_id)
    parts: list[str] = []
    end = 0
    for number, member in enumerate(members):
        offset = member.bit_offset // 8
        if member.name and not is_identifier(member.name):
            raise InputError(f"member {member.name!r} cannot be declared in C", where=".BTF")
        if base.kind is Kind.STRUCT and offset > end:
            parts.append(_padding(number, end, offset - end).declaration)
        size = btf.resolve_size(member.type_id)
        part = _declare(btf, member.type_id, member.name, budget, depth + 1).rstrip()
        is_anonymous = part.startswith(("struct {", "union {"))
        named = bool(member.name) or is_anonymous
        parts.append(part if named else _padding(number, offset, size).declaration)
        end = offset + size
    if base.kind is Kind.STRUCT and base.third > end:
        parts.append(_padding(len(members), end, base.third - end).declaration)
    body = " ".join(f"{part};" for part in parts)
    return f"{word} {{ {body} }}"
