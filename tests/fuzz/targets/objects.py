"""Objects, BTF, CO-RE records, and what an object wants to know of a machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cache
from itertools import islice

from bpfseal.bpf.insn import decode_insns
from bpfseal.btf.btf import Btf
from bpfseal.btf.core import Relocation, Relocator
from bpfseal.btf.core.matching import TargetTypes
from bpfseal.btf.ext import BtfExt
from bpfseal.btf.kinds import Kind
from bpfseal.bundle.c_types import declare, section_variables
from bpfseal.errors import BpfsealError
from bpfseal.kernel.linux.features import find_features
from bpfseal.kernel.model.kernel_btf import BtfFile
from bpfseal.loader import generate
from bpfseal.loader.checks import LOADER_BTF
from bpfseal.object import read_object
from bpfseal.object.elf import read_elf
from bpfseal.object.reader import read_externs
from bpfseal.object.target import TargetValues, kernel_version, parse_kconfig
from bpfseal.scheme import SCHEMES
from bpfseal.skeleton.types import Types
from support.btf_reading import read_everything
from support.btf_writer import every_kind
from support.samples import everything

from ..mutators import BYTES, ELF, INSNS, JSON, TEXT, by_part, join, split
from .base import TARGET_VALUES, Target, object_files

_LAST_TYPES = 64
"""Types of a BTF that codecs and C declarations are made of, from the last one on."""


def _objects() -> tuple[bytes, ...]:
    return (everything().encode(), everything("big").encode(), *object_files())


def _object(scheme: str) -> Callable[[bytes], object]:
    def call(data: bytes) -> object:
        return generate(read_object(data, "fuzzed.bpf.o", TARGET_VALUES), scheme)

    return call


def _externs(data: bytes) -> object:
    return read_externs(data, "fuzzed.bpf.o")


@cache
def _sections(name: str) -> tuple[bytes, ...]:
    """Return a section of each seed that has it."""
    found = []
    for data in _objects():
        sections = [each for each in read_elf(data).sections if each.name == name]
        found += [bytes(each.data) for each in sections]
    return tuple(found)


def btf_sections() -> tuple[bytes, ...]:
    """Return BTFs of objects and of loaders, and one with every kind, in both byte orders."""
    made = every_kind()
    return (LOADER_BTF, made.encode(), made.encode("big"), *_sections(".BTF"))


def _btf(data: bytes) -> object:
    btf = Btf.from_bytes(data)
    read_everything(btf)
    return btf


def _types(data: bytes) -> object:
    """Make codecs and C declarations of types, and values of the codecs."""
    btf = Btf.from_bytes(data)
    types = Types(btf)
    for type_id in islice(range(len(btf) - 1, 0, -1), _LAST_TYPES):
        with contextlib.suppress(BpfsealError):
            codec = types.codec(type_id)
            if codec.size <= len(data):
                value = codec.decode(data[: codec.size])
                codec.encode(value)
        with contextlib.suppress(BpfsealError):
            declare(btf, type_id, "name")
        if btf.kind_of(type_id) is Kind.DATASEC:
            with contextlib.suppress(BpfsealError):
                section_variables(btf, type_id, 4096)
    return None


def _btf_exts() -> tuple[bytes, ...]:
    with_both = [
        {each.name: bytes(each.data) for each in read_elf(data).sections} for data in _objects()
    ]
    return tuple(join(each[".BTF"], each[".BTF.ext"]) for each in with_both if ".BTF.ext" in each)


def _btf_ext(data: bytes) -> object:
    raw, ext = split(data, 2)
    return BtfExt.from_bytes(ext, Btf.from_bytes(raw))


def _core_relocations() -> tuple[bytes, ...]:
    """Return a local BTF, a kernel's, an instruction, a record and how it accesses its type."""
    found = []
    for data in object_files():
        sections = {each.name: bytes(each.data) for each in read_elf(data).sections}
        if ".BTF.ext" not in sections:
            continue
        btf = Btf.from_bytes(sections[".BTF"])
        ext = BtfExt.from_bytes(sections[".BTF.ext"], btf)
        for function in read_object(data, "seed.bpf.o", TARGET_VALUES).functions:
            for record in ext.core_relos.records_of(function.elf_section)[:2]:
                words = b"".join(word.to_bytes(4, "little") for word in record)
                access = btf.string(record[2]).encode()
                insns = function.insns[record[0] - 8 * function.section_insn :][:16]
                found.append(join(btf.raw, btf.raw, insns, words, access))
    return tuple(found)


def _core_relocation(data: bytes) -> object:
    local, target, raw, words, access = split(data, 5)
    row = [0, *(int.from_bytes(words[at : at + 4], "little") for at in (4, 8, 12))]
    insns = decode_insns(raw[: len(raw) // 8 * 8]) or decode_insns(bytes(8))
    relocator = Relocator(Btf.from_bytes(local), TargetTypes(Btf.from_bytes(target)))
    relocation = Relocation.from_record(row, access.decode("utf-8", "surrogateescape"))
    relocator.apply(insns, 0, relocation)
    return relocator.log


def _kernel_btf(data: bytes) -> object:
    """Ask a file for what the model asks its kernel (``--btf``)."""
    kernel = BtfFile(data)
    for name, kind in (("task_struct", Kind.STRUCT), ("event", Kind.STRUCT), ("int", Kind.INT)):
        kernel.find(name, kind)
        kernel.has_member(name, "pid")
    for type_id in (0, 1, 2, 3, 1 << 31):
        kernel.name_of(type_id, Kind.STRUCT)
    features = find_features(Btf.from_bytes(data))
    return features.scheme(), kernel.types


def _kconfigs() -> tuple[bytes, ...]:
    return (
        b'# comment\nCONFIG_HZ=250\nCONFIG_X=y\nCONFIG_M=m\nCONFIG_S="text"\n# CONFIG_N is not set',
        b"CONFIG_HZ=0x10\nCONFIG_X=n\n",
        b'CONFIG_HZ=-1\nCONFIG_S=""\n',
    )


def _kconfig(data: bytes) -> object:
    values = parse_kconfig(data.decode("utf-8", "replace"))
    raw = everything().encode()
    return read_object(raw, "everything.bpf.o", TargetValues(kconfig=values))


def _target_values() -> tuple[bytes, ...]:
    values = TargetValues(kconfig={"CONFIG_HZ": "250"}, symbols={"jiffies": 1 << 63})
    return (values.to_json(), b'{"possible_cpus": 2, "kconfig": {"CONFIG_HZ": "y"}}')


def _target_value(data: bytes) -> object:
    values = TargetValues.from_json(data)
    return generate(read_object(everything().encode(), "everything.bpf.o", values), "unsigned")


def _kernel_version(data: bytes) -> object:
    return kernel_version(data.decode("utf-8", "replace"))


TARGETS = (
    *(Target(f"object-{scheme}", _objects, _object(scheme), ELF) for scheme in SCHEMES),
    Target("object-externs", _objects, _externs, ELF),
    Target("btf", btf_sections, _btf),
    Target("btf-types", btf_sections, _types),
    Target("btf-ext", _btf_exts, _btf_ext, by_part(BYTES, BYTES)),
    Target(
        "core-relocation",
        _core_relocations,
        _core_relocation,
        by_part(BYTES, BYTES, INSNS, BYTES, TEXT),
    ),
    Target("kernel-btf", btf_sections, _kernel_btf),
    Target("kconfig", _kconfigs, _kconfig, TEXT),
    Target("target-values", _target_values, _target_value, JSON),
    Target("kernel-version", lambda: (b"6.18", b"6.18.44"), _kernel_version, TEXT),
)
