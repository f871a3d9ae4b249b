"""Global variables of a loaded program, live.

A section is the one value of an array that is mapped into this process: what the program writes is
seen by the next read, and what is written here is what the program reads next.

Example:
    >>> skel.bss.seen  # doctest: +SKIP
    17
    >>> skel.bss.seen = 0  # doctest: +SKIP
    >>> dict(skel.rodata)  # doctest: +SKIP
    {'min_lifetime_ns': 0}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

from bpfseal.errors import UsageError
from bpfseal.kernel.protocol import MappedMemory
from bpfseal.skeleton.description import Variable
from bpfseal.skeleton.handle import Handle
from bpfseal.skeleton.values import Value


class Section(MutableMapping[str, Value]):
    """The variables of one section, by name and as attributes.

    An attribute that a mapping has of its own, like ``keys``, is that; the variable goes by name
    then: ``section["keys"]``. A variable of 1, 2, 4 or 8 bytes is copied in one piece.
    """

    __slots__ = ("_handle", "_memory", "_name", "_read_only", "_variables")

    _handle: Handle
    _memory: MappedMemory
    _name: str
    _read_only: bool
    _variables: Mapping[str, Variable]

    def __init__(
        self,
        name: str,
        handle: Handle,
        memory: MappedMemory,
        variables: Mapping[str, Variable],
        *,
        read_only: bool,
    ) -> None:
        for slot, value in (
            ("_name", name),
            ("_handle", handle),
            ("_memory", memory),
            ("_variables", variables),
            ("_read_only", read_only),
        ):
            object.__setattr__(self, slot, value)

    def __getitem__(self, name: str) -> Value:
        variable = self._variables[name]
        end = variable.offset + variable.codec.size
        return variable.codec.decode(bytes(self._view[variable.offset : end]))

    def __setitem__(self, name: str, value: Value) -> None:
        if name not in self._variables:
            raise KeyError(name)
        if self._read_only:
            raise UsageError(
                f"{self._name}.{name} is read-only since the load",
                hint=f"where the scheme lets the host set it: load(..., rodata={{{name!r}: ...}})",
            )
        variable = self._variables[name]
        raw = variable.codec.encode(value)
        self._view[variable.offset : variable.offset + len(raw)] = raw

    def __delitem__(self, name: str) -> None:
        raise UsageError(f"{self._name}.{name} is a variable of the program: it stays")

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __getattr__(self, name: str) -> Value:
        if name not in self._variables:
            raise AttributeError(
                f"{self._name} has no variable {name!r}; there are: {', '.join(self)}"
            )
        return self[name]

    def __setattr__(self, name: str, value: Value) -> None:
        if name not in self._variables:
            raise AttributeError(
                f"{self._name} has no variable {name!r}; there are: {', '.join(self)}"
            )
        self[name] = value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._variables]

    def __repr__(self) -> str:
        return f"<section {self._name}: {', '.join(self)}>"

    @property
    def _view(self) -> memoryview:
        _ = self._handle.fd  # once the map is closed, its memory is gone, too
        return self._memory.view
