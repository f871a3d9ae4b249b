"""The config blob of a variant: what is known of a loader beside its bytes, as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bundle.fields import Fields, Json, canonical, parse
from bpfseal.bundle.media import MAX_ENTRIES
from bpfseal.loader.model import Loader, MapEntry, ProgramEntry
from bpfseal.scheme import SCHEMES

_U32 = (1 << 32) - 1


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
    maps: list[Json] = [
        {
            "name": entry.name,
            "ident": entry.ident,
            "type": entry.type,
            "key_size": entry.key_size,
            "value_size": entry.value_size,
            "max_entries": entry.max_entries,
            "flags": entry.flags,
            "has_initial_value": entry.has_initial_value,
        }
        for entry in loader.maps
    ]
    programs: list[Json] = [
        {
            "name": entry.name,
            "section": entry.section,
            "type": entry.type,
            "attach_type": entry.attach_type,
            "attach_target": entry.attach_target,
            "insn_count": entry.insn_count,
        }
        for entry in loader.programs
    ]
    return canonical(
        {
            "scheme": loader.scheme_name,
            "name": loader.name,
            "byteorder": loader.byteorder,
            "maps": maps,
            "programs": programs,
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
        maps=tuple(_map_entry(entry) for entry in fields.objects("maps", limit=MAX_ENTRIES)),
        programs=tuple(
            _program_entry(entry) for entry in fields.objects("programs", limit=MAX_ENTRIES)
        ),
        tool=fields.text("tool"),
    )
    fields.finish()
    return config


def _map_entry(fields: Fields) -> MapEntry:
    entry = MapEntry(
        name=fields.text("name"),
        ident=fields.text("ident"),
        type=fields.number("type", high=_U32),
        key_size=fields.number("key_size", high=_U32),
        value_size=fields.number("value_size", high=_U32),
        max_entries=fields.number("max_entries", high=_U32),
        flags=fields.number("flags", high=_U32),
        has_initial_value=fields.boolean("has_initial_value"),
    )
    fields.finish()
    return entry


def _program_entry(fields: Fields) -> ProgramEntry:
    entry = ProgramEntry(
        name=fields.text("name"),
        section=fields.text("section"),
        type=fields.number("type", high=_U32),
        attach_type=fields.number("attach_type", high=_U32),
        attach_target=fields.text("attach_target"),
        insn_count=fields.number("insn_count", high=_U32),
    )
    fields.finish()
    return entry
