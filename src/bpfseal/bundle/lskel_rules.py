"""What a loader determines of its light skeleton: everything but a few names.

Nobody signs a header, but programs are compiled with it. So whatever stands in it is derived from
the loader once more and compared: how each program is attached, the variables of global data, what
is mapped and how. Only names are left to the header (of the struct; of maps and programs beyond
what the loader holds of them; of raw tracepoints), and they must be names.

Which page size the header was written for, and with which release of libbpf, stands nowhere; all
parts of a header must agree on one.

Names need no more than to be identifiers: in a header of the tool they are members of structs, tags
or the middle of a longer name, so one that is a macro or a keyword in C++ does not compile, and
none takes the place of something else.

Example:
    >>> check_header(header, reading)  # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from bpfseal.bpf.uapi import AttachType, MapFlag, ProgType
from bpfseal.btf.btf import Btf, BtfType
from bpfseal.btf.kinds import Kind
from bpfseal.bundle.c_dump import (
    DIALECTS,
    CDump,
    Dialect,
    data_sections,
    section_ident,
    shown_variables,
)
from bpfseal.bundle.lskel import LightSkeleton
from bpfseal.bundle.lskel_lines import Said
from bpfseal.errors import InputError
from bpfseal.loader.reading import LoadedProgram, LoaderReading, MadeMap

PAGE_SIZES: Final = (4096, 8192, 16384, 65536)
"""Page sizes of Linux in bytes: the reference tool takes that of the machine it runs on."""

_VALUE_ALIGNMENT: Final = 8
_SHOWN: Final = 60

_TRACEPOINT: Final = re.compile(r'skel_raw_tracepoint_open\("([A-Za-z0-9_]+)", prog_fd\);')
_ATTACH_BY_BTF: Final = "skel_raw_tracepoint_open(NULL, prog_fd);"
_ATTACH_ITERATOR: Final = "skel_link_create(prog_fd, 0, BPF_TRACE_ITER);"
_NO_ATTACH: Final = "((void)prog_fd, 0); /* auto-attach not supported */"


def check_header(header: LightSkeleton, reading: LoaderReading) -> None:
    """Compare what a header says with what its loader does. The time is linear in both sizes.

    Args:
        header: the header, whose maps and programs are as many as the loader's.
        reading: what the loader does.

    Raises:
        InputError: the header says something else; with the line.
    """
    made = dict(zip(header.maps, reading.maps, strict=True))
    for program, loaded in zip(header.programs, reading.programs, strict=True):
        _check_attached(header.attached[program], loaded)
    shown = [ident for ident, each in made.items() if _is_shown(each)]
    if [*header.sections] != shown:
        different = sorted({*header.sections} ^ {*shown})
        raise InputError(f"the loader maps other global data than the header: {different[0]}")
    _check_mapping(header, {ident: made[ident] for ident in shown})
    if not reading.btf:
        for said in header.sections.values():
            _compare(said, "")
        if header.asserts is not None:
            raise InputError("sizes of variables without BTF", where=f"line {header.asserts.line}")
        return
    btf = Btf.from_bytes(reading.btf)
    sections = data_sections(btf)
    found = {ident: _section(btf, ident, made[ident], sections) for ident in shown}
    _check_members(btf, header, found)
    _check_asserts(btf, header, found)


def tracepoint_of(attached: Said) -> str:
    """Return the raw tracepoint to which a program is attached, or ``""``."""
    named = _TRACEPOINT.fullmatch(attached.text)
    return named[1] if named else ""


def mapped_size(made: MadeMap, page_size: int) -> int:
    """Return how many bytes of a map's value are mapped (``bpf_map_mmap_sz`` in gen.c)."""
    value = -(-made.fields["value_size"] // _VALUE_ALIGNMENT) * _VALUE_ALIGNMENT
    return -(-value * made.fields["max_entries"] // page_size) * page_size


def protection_of(made: MadeMap) -> str:
    """Return how global data are mapped after the load."""
    is_constant = made.fields["map_flags"] & MapFlag.RDONLY_PROG
    return "PROT_READ" if is_constant else "PROT_READ | PROT_WRITE"


def attach_call(loaded: LoadedProgram, tracepoint: str) -> str:
    """Return the expression that attaches a program (``codegen_attach_detach`` in gen.c).

    Args:
        loaded: the program.
        tracepoint: the name of a raw tracepoint, which no part of a loader holds.
    """
    match loaded.fields["prog_type"]:
        case ProgType.RAW_TRACEPOINT:
            return f'skel_raw_tracepoint_open("{tracepoint}", prog_fd);'
        case ProgType.TRACING | ProgType.LSM:
            is_iterator = loaded.fields["expected_attach_type"] == AttachType.TRACE_ITER
            return _ATTACH_ITERATOR if is_iterator else _ATTACH_BY_BTF
    return _NO_ATTACH


def asserted_sizes(btf: Btf, ident: str, section: BtfType) -> Iterator[str]:
    """Yield the lines that assert the sizes of a section's variables (``codegen_asserts``)."""
    for variable in shown_variables(btf, section):
        try:
            size = btf.resolve_size(variable.type_id)
        except InputError:
            continue
        name = variable.ident
        yield (
            f"\t_Static_assert(sizeof(s->{ident}->{name}) == {size}, "
            f"\"unexpected size of '{name}'\");\n"
        )


def _is_shown(made: MadeMap) -> bool:
    return made.initial_value is not None and bool(made.fields["map_flags"] & MapFlag.MMAPABLE)


def _check_attached(said: Said, loaded: LoadedProgram) -> None:
    """A name of a raw tracepoint is the header's own; the rest is not."""
    expected = attach_call(loaded, tracepoint_of(said) or "NAME")
    if said.text != expected:
        raise InputError(
            f"{said.text[:_SHOWN]!r}, where the loader's program is attached by {expected!r}",
            where=f"line {said.line}",
        )


def _check_mapping(header: LightSkeleton, made: dict[str, MadeMap]) -> None:
    sizes = list(PAGE_SIZES)
    for ident, each in made.items():
        said = header.mapped[ident]
        sizes = [size for size in sizes if str(mapped_size(each, size)) == said.text]
        if not sizes:
            expected = mapped_size(each, PAGE_SIZES[0])
            raise InputError(
                f"{said.text} bytes of {ident} are mapped, the loader's map has {expected}",
                where=f"line {said.line}",
            )
        said = header.protections[ident]
        if said.text != protection_of(each):
            raise InputError(
                f"{ident} is mapped with {said.text}, the loader's map with {protection_of(each)}",
                where=f"line {said.line}",
            )


def _section(btf: Btf, ident: str, made: MadeMap, known: dict[str, BtfType]) -> BtfType | None:
    """Return the DATASEC of a map, as the tool finds it: by the name of the map's member.

    Raises:
        InputError: that is not the map's own.
    """
    found = known.get(ident)
    type_id = made.fields["btf_value_type_id"]
    own = btf.type_by_id(type_id)
    is_own = found is not None and found.id == type_id
    if not is_own and (found is not None or section_ident(own.name)):
        raise InputError(f"{ident} is shown with the variables of another section")
    if found is not None and own.kind is not Kind.DATASEC:
        raise InputError(f"{ident} has no variables")
    return found


class _DifferentError(InputError):
    """A header says something else than a release of the tool does."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message, where=f"line {line}")
        self.line = line


@dataclass(slots=True)
class _Follower:
    """Takes what should be said, and stops where something else is said."""

    said: Said
    at: int = 0

    def put(self, text: str) -> None:
        """Take a piece of what should be said."""
        if not self.said.text.startswith(text, self.at):
            self.refuse(text)
        self.at += len(text)

    def finish(self) -> None:
        """Say that this is all."""
        if self.at != len(self.said.text):
            self.refuse("nothing more")

    def refuse(self, wanted: str) -> NoReturn:
        """Say what should stand there."""
        raise _DifferentError(
            self.said.line + self.said.text.count("\n", 0, self.at),
            f"the loader's BTF makes it {wanted.strip()[:_SHOWN]!r}",
        )


def _check_members(btf: Btf, header: LightSkeleton, found: dict[str, BtfType | None]) -> None:
    errors: list[_DifferentError] = []
    for dialect in DIALECTS:
        try:
            _follow_members(btf, header, found, dialect)
        except _DifferentError as error:
            errors.append(error)
        except InputError:
            if not errors:  # else this dialect cannot say what the BTF does
                raise
        else:
            return
    furthest = max(errors, key=lambda error: error.line)
    raise InputError(furthest.message, where=furthest.where)


def _follow_members(
    btf: Btf, header: LightSkeleton, found: dict[str, BtfType | None], dialect: Dialect
) -> None:
    follower = _Follower(Said(0, ""))
    dump = CDump(btf, dialect, lambda text: follower.put(text))
    for ident, section in found.items():
        follower = _Follower(header.sections[ident])
        if section is not None:
            dump.section(section)
        follower.finish()


def _check_asserts(btf: Btf, header: LightSkeleton, found: dict[str, BtfType | None]) -> None:
    if header.asserts is None:
        raise InputError("the function that asserts the sizes of variables is missing")
    follower = _Follower(header.asserts)
    for ident, section in found.items():
        if section is not None:
            for line in asserted_sizes(btf, ident, section):
                follower.put(line)
    follower.finish()


def _compare(said: Said, expected: str) -> None:
    follower = _Follower(said)
    follower.put(expected)
    follower.finish()
