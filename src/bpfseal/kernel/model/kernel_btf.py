"""The kernel's own names: its BTF (types and functions) and its symbols.

A name is looked up in a file that describes a kernel, or, where there is none, taken on trust: the
synthetic BTF has every name that it is asked for, and says afterwards which ones it assumed.

Example:
    >>> btf = SyntheticBtf()
    >>> btf.find("task_struct", Kind.STRUCT) == btf.find("task_struct", Kind.STRUCT)
    True
    >>> btf.assumed
    ['struct task_struct']
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Final, Protocol

from bpfseal.btf.btf import Btf
from bpfseal.btf.core import TargetTypes
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError
from bpfseal.input_file import read_file

RUNNING_KERNEL: Final = Path("/sys/kernel/btf/vmlinux")
"""Where a kernel shows its own BTF."""

_MAX_BTF_SIZE: Final = 64 << 20
"""Bytes of the largest BTF that is read. Those of distributions' kernels have 4 to 8 million."""

_FIRST_ADDED_ID: Final = 0x0F00_0000
"""Ids of functions that are added to a BTF: above those of any real type."""


class KernelBtf(Protocol):
    """The BTF of the kernel that the model is."""

    @property
    def description(self) -> str:
        """Where the names come from, one line."""

    @property
    def assumed(self) -> list[str]:
        """The names that were taken on trust, in the order that they were asked for."""

    def find(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type, or ``None`` if the kernel has none of that name and kind."""

    def known(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type that the kernel has for certain."""

    def name_of(self, type_id: int, kind: Kind) -> str | None:
        """Return the name of a type if it is of this kind."""

    def has_member(self, struct: str, member: str) -> bool:
        """Whether a struct of the kernel has a field."""

    @property
    def types(self) -> TargetTypes | None:
        """All types of the kernel, ``None`` where they are taken on trust."""

    def assume(self, what: str) -> None:
        """Take something on trust, where there are no types to ask."""


class BtfFile:
    """Kernel BTF from raw bytes, in the format of ``/sys/kernel/btf/vmlinux``.

    The bytes are parsed at the first question, and only the kinds asked for are indexed: a
    kernel's 130,000 types take about half a second.
    """

    def __init__(self, raw: bytes, where: str = "kernel BTF", *, trusted: bool = False) -> None:
        self._raw = raw
        self._trusted = trusted
        self._where = where
        self.assumed: list[str] = []

    @property
    def description(self) -> str:
        """The file."""
        return self._where

    @cached_property
    def types(self) -> TargetTypes:
        """All types of the kernel.

        Raises:
            InputError: the file is no valid BTF.
        """
        return TargetTypes(self._btf)

    def assume(self, what: str) -> None:
        """Take something on trust: a file leaves nothing to that."""

    @cached_property
    def _btf(self) -> Btf:
        return Btf.from_bytes(self._raw, self._where, trusted=self._trusted)

    def find(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type, or ``None``.

        Raises:
            InputError: the file is no valid BTF.
        """
        if b"\0" + name.encode() + b"\0" not in self._raw:  # that takes no parsing
            return None
        return self._btf.find(name, kind)

    def known(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type, or ``None``: a file assumes nothing."""
        return self.find(name, kind)

    def name_of(self, type_id: int, kind: Kind) -> str | None:
        """Return the name of a type if it is of this kind."""
        if not 0 < type_id < len(self._btf) or self._btf.kind_of(type_id) is not kind:
            return None
        return self._btf.type_by_id(type_id).name

    def has_member(self, struct: str, member: str) -> bool:
        """Whether a struct of the kernel has a field."""
        type_id = self.find(struct, Kind.STRUCT)
        if type_id is None:
            return False
        return any(entry.name == member for entry in self._btf.members(type_id))


class SyntheticBtf:
    """Kernel BTF that has every name it is asked for."""

    description = "synthetic (every name exists)"
    types = None

    def __init__(self, functions: tuple[str, ...] = ()) -> None:
        self._fresh = count(1)
        self._ids: dict[tuple[str, Kind], int] = {
            (name, Kind.FUNC): next(self._fresh) for name in functions
        }
        self.assumed: list[str] = []

    def find(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type, a fresh one if nobody asked for it before."""
        if (name, kind) not in self._ids:
            self._ids[name, kind] = next(self._fresh)
            self.assumed.append(f"{kind.name.lower()} {name}")
        return self._ids[name, kind]

    def known(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type that was declared or asked for already."""
        return self._ids.get((name, kind))

    def name_of(self, type_id: int, kind: Kind) -> str | None:
        """Return the name of a type if it is of this kind."""
        names = (name for (name, of), known in self._ids.items() if (known, of) == (type_id, kind))
        return next(names, None)

    def has_member(self, struct: str, member: str) -> bool:
        """Assume that a struct has a field."""
        self.assume(f"field {struct}.{member}")
        return True

    def assume(self, what: str) -> None:
        """Take something on trust."""
        if what not in self.assumed:
            self.assumed.append(what)


class ExtendedBtf:
    """Another kernel BTF with functions added to it: those of the patches that a profile has."""

    def __init__(self, base: KernelBtf, functions: Iterable[str]) -> None:
        self._base = base
        self._ids = {
            name: type_id
            for type_id, name in enumerate(functions, _FIRST_ADDED_ID)
            if base.known(name, Kind.FUNC) is None
        }

    @property
    def description(self) -> str:
        """That of the BTF below."""
        return self._base.description

    @property
    def assumed(self) -> list[str]:
        """Those of the BTF below."""
        return self._base.assumed

    def find(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type, or ``None``."""
        return self._added(name, kind) or self._base.find(name, kind)

    def known(self, name: str, kind: Kind) -> int | None:
        """Return the id of a type that the kernel has for certain."""
        return self._added(name, kind) or self._base.known(name, kind)

    def name_of(self, type_id: int, kind: Kind) -> str | None:
        """Return the name of a type if it is of this kind."""
        for name, added in self._ids.items():
            if (added, kind) == (type_id, Kind.FUNC):
                return name
        return self._base.name_of(type_id, kind)

    def has_member(self, struct: str, member: str) -> bool:
        """Whether a struct of the kernel has a field."""
        return self._base.has_member(struct, member)

    @property
    def types(self) -> TargetTypes | None:
        """Those of the BTF below."""
        return self._base.types

    def assume(self, what: str) -> None:
        """Take something on trust, where the BTF below does."""
        self._base.assume(what)

    def _added(self, name: str, kind: Kind) -> int | None:
        return self._ids.get(name) if kind is Kind.FUNC else None


class KernelSymbols(Protocol):
    """The kernel's symbols, as ``kallsyms_lookup_name`` finds them."""

    @property
    def assumed(self) -> list[str]:
        """The names that were taken on trust."""

    def address(self, name: str) -> int | None:
        """Return a symbol's address, or ``None``."""


class SymbolTable:
    """Known symbols."""

    def __init__(self, addresses: Mapping[str, int]) -> None:
        self._addresses = dict(addresses)
        self.assumed: list[str] = []

    def address(self, name: str) -> int | None:
        """Return a symbol's address, or ``None``."""
        return self._addresses.get(name)


class SyntheticSymbols:
    """Symbols that all exist, at made-up addresses of kernel text."""

    def __init__(self) -> None:
        self._addresses: dict[str, int] = {}
        self._fresh = count(0xFFFF_FFFF_8100_0000, 16)
        self.assumed: list[str] = []

    def address(self, name: str) -> int | None:
        """Return a symbol's address, a fresh one if nobody asked for it before."""
        if name not in self._addresses:
            self._addresses[name] = next(self._fresh)
            self.assumed.append(name)
        return self._addresses[name]


def choose_kernel_btf(path: Path | None = None) -> KernelBtf:
    """Return the BTF in a file, else that of the running kernel, else a synthetic one.

    Raises:
        InputError: the file that was named cannot be read.
    """
    chosen = path or RUNNING_KERNEL
    try:
        raw = read_file(chosen, limit=_MAX_BTF_SIZE)
    except InputError:
        if path is not None:
            raise
        return SyntheticBtf()
    return BtfFile(raw, str(chosen), trusted=path is None)
