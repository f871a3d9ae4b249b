"""The value that generation makes: a loader with all that a signer and a kernel need of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from bpfseal.bpf.insn import ByteOrder
from bpfseal.scheme import SCHEMES, Scheme

CTX_HEADER_SIZE = 24
"""Bytes of ``struct bpf_loader_ctx``: u32 sz, flags, log_level, log_size; u64 log_buf."""

MAP_DESC_SIZE = 16
"""Bytes of ``struct bpf_map_desc``: int map_fd; u32 max_entries; u64 initial_value."""

PROG_DESC_SIZE = 4
"""Bytes of ``struct bpf_prog_desc``: int prog_fd."""

LOADER_LICENSE = "Dual BSD/GPL"
"""The licence under which every loader program is loaded (``bpf_load_and_run``)."""

LOADER_PROG_NAME = "__loader.prog"
LOADER_MAP_NAME = "__loader.map"


@dataclass(frozen=True, slots=True)
class MapEntry:
    """A map that the loader creates, in the order of the loader's context.

    Attributes:
        name: the name in the kernel, at most 15 bytes.
        ident: the name as a C identifier, unique in the loader (``rodata`` for ``.rodata``).
        type: the number of the map type (`bpfseal.bpf.uapi.MapType`).
        key_size: bytes of a key.
        value_size: bytes of a value.
        max_entries: the number of entries, as the metadata has it.
        flags: flags of BPF_MAP_CREATE.
        has_initial_value: the loader fills it from the metadata (global data).
    """

    name: str
    ident: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    has_initial_value: bool = False


@dataclass(frozen=True, slots=True)
class ProgramEntry:
    """A program that the loader loads, in the order of the loader's context.

    Attributes:
        name: the C function's name.
        section: the ELF section, which says the program type and the attach point.
        type: the number of the program type (`bpfseal.bpf.uapi.ProgType`).
        attach_type: the number of the expected attach type (`bpfseal.bpf.uapi.AttachType`).
        attach_target: the kernel function or hook that the loader looks up, or ``""``.
        insn_count: instruction slots, with the subprograms appended to it.
    """

    name: str
    section: str
    type: int
    attach_type: int = 0
    attach_target: str = ""
    insn_count: int = 0


@dataclass(frozen=True)
class Loader:
    """A loader program with its metadata.

    Attributes:
        scheme_name: a key of `bpfseal.scheme.SCHEMES`.
        name: the object's name as an identifier, for example ``execsnoop_bpf``.
        insns: the loader program.
        metadata: the bytes of the metadata map's one value.
        btf: the loader's own BTF; empty in schemes without one.
        maps: what the loader creates.
        programs: what the loader loads.
        byteorder: the byte order of the machine that the loader is for.
    """

    scheme_name: str
    name: str
    insns: bytes
    metadata: bytes
    btf: bytes
    maps: tuple[MapEntry, ...]
    programs: tuple[ProgramEntry, ...]
    byteorder: ByteOrder = "little"

    @property
    def scheme(self) -> Scheme:
        """The facts of the loader's scheme."""
        return SCHEMES[self.scheme_name]

    @cached_property
    def excl_prog_hash(self) -> bytes:
        """SHA-256 of the instructions: what the metadata map is exclusive to."""
        return hashlib.sha256(self.insns).digest()

    @cached_property
    def metadata_digest(self) -> bytes:
        """SHA-256 of the metadata: what the loader's check block carries."""
        return hashlib.sha256(self.metadata).digest()

    @property
    def ctx_size(self) -> int:
        """Bytes of the loader's context."""
        return self.prog_fd_offset(len(self.programs))

    def map_fd_offset(self, index: int) -> int:
        """Offset of the fd of map `index` in the context."""
        return CTX_HEADER_SIZE + MAP_DESC_SIZE * index

    def prog_fd_offset(self, index: int) -> int:
        """Offset of the fd of program `index` in the context."""
        return CTX_HEADER_SIZE + MAP_DESC_SIZE * len(self.maps) + PROG_DESC_SIZE * index
