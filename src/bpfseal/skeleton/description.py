"""What a loader's metadata says about its maps: the types of keys, values and global variables.

Nothing is read before somebody asks.

Example:
    >>> Description(loader).variables(2)["min_lifetime_ns"].offset  # doctest: +SKIP
    0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bpfseal.bpf.uapi import MapFlag
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import InputError, UsageError
from bpfseal.loader.model import Loader, MapEntry
from bpfseal.loader.reading import LoaderReading, MadeMap, read_loader
from bpfseal.skeleton.maps import MapTypes, plain_types
from bpfseal.skeleton.types import Types
from bpfseal.skeleton.values import Codec


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable: its type, and where in its section it lies."""

    codec: Codec
    offset: int


class Description:
    """The types in a loader's metadata."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    @cached_property
    def _reading(self) -> LoaderReading:
        loader = self.loader
        return read_loader(loader.insns, loader.metadata, loader.byteorder)

    @cached_property
    def _maps(self) -> tuple[MadeMap, ...]:
        made = self._reading.maps
        expected = len(self.loader.maps)
        if len(made) != expected:
            raise InputError(
                f"the loader makes {len(made)} maps, the list has {expected}",
                where=self.loader.name,
            )
        return made

    @cached_property
    def _btf(self) -> Btf | None:
        raw = self._reading.btf
        return Btf.from_bytes(raw) if raw else None

    @cached_property
    def types(self) -> Types | None:
        """The types of the object, ``None`` for one without BTF."""
        return None if self._btf is None else Types(self._btf)

    def named(self, name: str) -> Codec:
        """Return the codec of a struct, union, enum or typedef of the object.

        Raises:
            UsageError: the object has no BTF, or none of this name.
        """
        if self.types is None:
            raise UsageError(f"the object has no BTF to know {name!r} from")
        return self.types.named(name)

    def map_types(self, index: int) -> MapTypes:
        """Return the types of a map's keys and values.

        Raises:
            InputError: the metadata cannot be read, or its BTF is malformed.
        """
        entry = self.loader.maps[index]
        key, value = plain_types(entry, self.loader.byteorder)
        fields = self._maps[index].fields
        return MapTypes(
            self._described(fields["btf_key_type_id"], entry.key_size) or key,
            self._described(fields["btf_value_type_id"], entry.value_size) or value,
            self.types,
        )

    def _described(self, type_id: int, size: int) -> Codec | None:
        """Return the codec of a type that is there and has the right size."""
        if self.types is None or self._btf is None or not type_id:
            return None
        if self._btf.type_by_id(type_id).kind is Kind.DATASEC:
            return None
        codec = self.types.codec(type_id)
        return codec if codec.size == size else None

    def variables(self, index: int) -> Mapping[str, Variable]:
        """Return the variables in a map of global data that other files can see, in order.

        Raises:
            InputError: the metadata cannot be read, or its BTF is malformed.
        """
        entry = self.loader.maps[index]
        type_id = self._maps[index].fields["btf_value_type_id"]
        btf = self._btf
        if self.types is None or btf is None or not type_id:
            return {}
        if btf.type_by_id(type_id).kind is not Kind.DATASEC:
            return {}
        found: dict[str, Variable] = {}
        for info in sorted(btf.secinfos(type_id), key=lambda info: info.offset):
            var = btf.type_by_id(info.type_id)
            if var.kind is not Kind.VAR:
                raise InputError(f"section type {type_id} holds no variable", where=".BTF")
            if btf.extra_word(var.id) == Linkage.STATIC:
                continue
            codec = self.types.codec(var.third)
            if info.offset + codec.size > entry.value_size:
                raise InputError(f"variable {var.name!r} is misplaced", where=".BTF")
            found[var.name] = Variable(codec, info.offset)
        return found

    def initial_value(self, index: int) -> bytes:
        """Return what the metadata puts into a map of global data.

        Raises:
            InputError: nothing, or something of another size.
        """
        entry = self.loader.maps[index]
        value = self._maps[index].initial_value
        if value is None or len(value) != entry.value_size:
            raise InputError(f"map {entry.ident} has no initial value of its size")
        return value

    def with_values(self, values: Mapping[str, object]) -> dict[str, bytes]:
        """Return the initial contents of read-only sections, with some variables changed.

        Args:
            values: what to set, by the variable's name.

        Returns:
            The contents of the sections that change, by the map's name.

        Raises:
            UsageError: no read-only section has such a variable, or a value does not fit it.
        """
        left = dict(values)
        changed: dict[str, bytes] = {}
        known: list[str] = []
        for index, entry in enumerate(self.loader.maps):
            if not is_read_only(entry):
                continue
            variables = self.variables(index)
            known += variables
            mine = [name for name in variables if name in left]
            if mine:
                data = bytearray(self.initial_value(index))
                for name in mine:
                    codec, at = variables[name].codec, variables[name].offset
                    try:
                        data[at : at + codec.size] = codec.encode(left.pop(name))
                    except UsageError as error:
                        error.where = f"{name}.{error.where}" if error.where else name
                        raise
                changed[entry.ident] = bytes(data)
        if left:
            raise UsageError(
                f"no read-only variable {', '.join(left)}",
                hint=f"there are: {', '.join(known) or 'none'}",
            )
        return changed


def is_read_only(entry: MapEntry) -> bool:
    """Whether a map is global data that is fixed once it is loaded."""
    return entry.has_initial_value and bool(entry.flags & MapFlag.RDONLY_PROG)
