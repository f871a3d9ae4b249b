"""The config blob of a variant: what is known of a loader beside its bytes, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from functools import partial
from typing import Any, Final, TypeVar

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bundle.fields import Fields, canonical, parse
from bpfseal.bundle.media import MAX_ENTRIES
from bpfseal.loader.model import Loader, MapEntry, ProgramEntry
from bpfseal.scheme import SCHEMES

_U32: Final = (1 << 32) - 1

T = TypeVar("T", MapEntry, ProgramEntry)


@dataclass(frozen=True, slots=True)
class Config:
    """A loader without its bytes.

    Attributes:
        tool: the name and version of what made the loader.
    """

    scheme_name: str
    name: str
    byteorder: ByteOrder
    maps: tuple[MapEntry, ...]
    programs: tuple[ProgramEntry, ...]
    tool: str


def encode_config(loader: Loader, tool: str) -> bytes:
    """Return the config blob of a loader that `tool` made."""
    return canonical(
        {
            "scheme": loader.scheme_name,
            "name": loader.name,
            "byteorder": loader.byteorder,
            "maps": [asdict(entry) for entry in loader.maps],
            "programs": [asdict(entry) for entry in loader.programs],
            "tool": tool,
        }
    )


def decode_config(data: bytes, where: str) -> Config:
    """Read a config blob.

    Raises:
        InputError: a field is missing, unknown, of another type or out of range.
    """
    fields = parse(data, where)
    byteorder: ByteOrder = (
        "little" if fields.text("byteorder", choices=("little", "big")) == "little" else "big"
    )
    config = Config(
        scheme_name=fields.text("scheme", choices=SCHEMES),
        name=fields.text("name"),
        byteorder=byteorder,
        maps=tuple(_entry(MapEntry, entry) for entry in fields.objects("maps", limit=MAX_ENTRIES)),
        programs=tuple(
            _entry(ProgramEntry, entry) for entry in fields.objects("programs", limit=MAX_ENTRIES)
        ),
        tool=fields.text("tool"),
    )
    fields.finish()
    return config


def _entry(kind: type[T], fields: Fields) -> T:
    """Read an entry whose members in the JSON are the attributes of a dataclass, by their types."""
    read: Mapping[str, Callable[[str], Any]] = {
        "str": fields.text,
        "int": partial(fields.number, high=_U32),
        "bool": fields.boolean,
    }
    entry = kind(**{each.name: read[str(each.type)](each.name) for each in dataclass_fields(kind)})
    fields.finish()
    return entry
