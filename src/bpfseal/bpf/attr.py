"""The layouts of ``union bpf_attr`` for the commands that a load needs.

Offsets and sizes are those of ``include/uapi/linux/bpf.h``. A layout packs named fields into bytes
of a given length and reads them back; pointers are u64.

Example:
    >>> MAP_FREEZE.pack(map_fd=5).hex()
    '05000000'
    >>> PROG_LOAD.end("core_relo_rec_size")
    140
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bpfseal.bpf.insn import ByteOrder


@dataclass(frozen=True, slots=True)
class Field:
    """One field: byte offset, byte size, and whether it is signed or a byte string."""

    offset: int
    size: int
    signed: bool = False
    is_bytes: bool = False

    @property
    def end(self) -> int:
        """The offset behind the field."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, eq=False)
class AttrLayout:
    """The part of ``union bpf_attr`` that one command uses; each is one of a kind.

    Attributes:
        fields: the fields by name.
        size: the bytes that `pack` writes when no other length is asked for.
    """

    fields: Mapping[str, Field]
    size: int

    def offset(self, name: str) -> int:
        """The byte offset of a field."""
        return self.fields[name].offset

    def end(self, name: str) -> int:
        """The offset behind a field, ``offsetofend`` in C."""
        return self.fields[name].end

    def pack(
        self, *, size: int | None = None, byteorder: ByteOrder = "little", **values: int | bytes
    ) -> bytes:
        """Return `size` bytes with the named fields set; see `pack_fields`."""
        return self.pack_fields(values, size=size, byteorder=byteorder)

    def pack_fields(
        self,
        values: Mapping[str, int | bytes],
        *,
        size: int | None = None,
        byteorder: ByteOrder = "little",
    ) -> bytes:
        """Return `size` bytes with these fields set and all others zero.

        Byte strings that are too long are cut off so that a final zero byte remains, as
        ``libbpf_strlcpy`` does with names.

        Raises:
            ValueError: a number that does not fit its field, or a field behind `size`.
        """
        out = bytearray(self.size if size is None else size)
        for name, value in values.items():
            field = self.fields[name]
            if field.end > len(out):
                raise ValueError(f"field {name} lies behind {len(out)} bytes")
            if isinstance(value, bytes):
                raw = value[: field.size - 1].ljust(field.size, b"\0")
            else:
                mask = (1 << 8 * field.size) - 1
                if not -(mask // 2 + 1) <= value <= mask:
                    raise ValueError(f"{value} does not fit {name}")
                raw = (value & mask).to_bytes(field.size, byteorder)
            out[field.offset : field.end] = raw
        return bytes(out)

    def unpack(self, data: bytes) -> dict[str, int]:
        """Return the numeric fields; those behind the end of `data` are 0 (little-endian)."""
        padded = data.ljust(max(field.end for field in self.fields.values()), b"\0")
        return {
            name: int.from_bytes(padded[field.offset : field.end], "little", signed=field.signed)
            for name, field in self.fields.items()
            if not field.is_bytes
        }

    def name_field(self, data: bytes, name: str) -> str:
        """Return a byte-string field up to its first zero byte, as text."""
        field = self.fields[name]
        raw = data[field.offset : field.end]
        return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def _layout(*entries: tuple[str, int, int] | tuple[str, int, int, str]) -> AttrLayout:
    fields = {
        entry[0]: Field(
            entry[1],
            entry[2],
            signed="signed" in entry[3:],
            is_bytes="bytes" in entry[3:],
        )
        for entry in entries
    }
    return AttrLayout(fields, max(field.end for field in fields.values()))


MAP_CREATE = _layout(
    ("map_type", 0, 4),
    ("key_size", 4, 4),
    ("value_size", 8, 4),
    ("max_entries", 12, 4),
    ("map_flags", 16, 4),
    ("inner_map_fd", 20, 4),
    ("numa_node", 24, 4),
    ("map_name", 28, 16, "bytes"),
    ("map_ifindex", 44, 4),
    ("btf_fd", 48, 4),
    ("btf_key_type_id", 52, 4),
    ("btf_value_type_id", 56, 4),
    ("btf_vmlinux_value_type_id", 60, 4),
    ("map_extra", 64, 8),
    ("value_type_btf_obj_fd", 72, 4, "signed"),
    ("map_token_fd", 76, 4, "signed"),
    ("excl_prog_hash", 80, 8),
    ("excl_prog_hash_size", 88, 4),
)

MAP_ELEM = _layout(("map_fd", 0, 4), ("key", 8, 8), ("value", 16, 8), ("flags", 24, 8))

MAP_FREEZE = _layout(("map_fd", 0, 4))

PROG_LOAD = _layout(
    ("prog_type", 0, 4),
    ("insn_cnt", 4, 4),
    ("insns", 8, 8),
    ("license", 16, 8),
    ("log_level", 24, 4),
    ("log_size", 28, 4),
    ("log_buf", 32, 8),
    ("kern_version", 40, 4),
    ("prog_flags", 44, 4),
    ("prog_name", 48, 16, "bytes"),
    ("prog_ifindex", 64, 4),
    ("expected_attach_type", 68, 4),
    ("prog_btf_fd", 72, 4),
    ("func_info_rec_size", 76, 4),
    ("func_info", 80, 8),
    ("func_info_cnt", 88, 4),
    ("line_info_rec_size", 92, 4),
    ("line_info", 96, 8),
    ("line_info_cnt", 104, 4),
    ("attach_btf_id", 108, 4),
    ("attach_btf_obj_fd", 112, 4),
    ("core_relo_cnt", 116, 4),
    ("fd_array", 120, 8),
    ("core_relos", 128, 8),
    ("core_relo_rec_size", 136, 4),
    ("log_true_size", 140, 4),
    ("prog_token_fd", 144, 4, "signed"),
    ("fd_array_cnt", 148, 4),
    ("signature", 152, 8),
    ("signature_size", 160, 4),
    ("keyring_id", 164, 4, "signed"),
)

BTF_LOAD = _layout(
    ("btf", 0, 8),
    ("btf_log_buf", 8, 8),
    ("btf_size", 16, 4),
    ("btf_log_size", 20, 4),
    ("btf_log_level", 24, 4),
    ("btf_log_true_size", 28, 4),
    ("btf_flags", 32, 4),
    ("btf_token_fd", 36, 4, "signed"),
)

PROG_RUN = _layout(
    ("prog_fd", 0, 4),
    ("retval", 4, 4),
    ("data_size_in", 8, 4),
    ("data_size_out", 12, 4),
    ("data_in", 16, 8),
    ("data_out", 24, 8),
    ("repeat", 32, 4),
    ("duration", 36, 4),
    ("ctx_size_in", 40, 4),
    ("ctx_size_out", 44, 4),
    ("ctx_in", 48, 8),
    ("ctx_out", 56, 8),
    ("flags", 64, 4),
    ("cpu", 68, 4),
    ("batch_size", 72, 4),
)

OBJ_GET_INFO_BY_FD = _layout(("bpf_fd", 0, 4), ("info_len", 4, 4), ("info", 8, 8))

MAP_DELETE_ELEM = _layout(("map_fd", 0, 4), ("key", 8, 8))

LINK_CREATE = _layout(
    ("prog_fd", 0, 4),
    ("target_fd", 4, 4),
    ("attach_type", 8, 4),
    ("flags", 12, 4),
    ("target_btf_id", 16, 4),
    ("uprobe_path_fd", 60, 4),
)
"""LINK_CREATE: what every link has, and the last field of the longest kind of link."""

LINK_KINDS: Mapping[str, AttrLayout] = MappingProxyType(
    {
        "iter": _layout(("iter_info", 16, 8), ("iter_info_len", 24, 4)),
        "perf_event": _layout(("bpf_cookie", 16, 8)),
        "tracing": _layout(("target_btf_id", 16, 4), ("cookie", 24, 8)),
        "kprobe_multi": _layout(
            ("flags", 16, 4), ("cnt", 20, 4), ("syms", 24, 8), ("addrs", 32, 8), ("cookies", 40, 8)
        ),
        "uprobe_multi": _layout(
            ("path", 16, 8),
            ("offsets", 24, 8),
            ("ref_ctr_offsets", 32, 8),
            ("cookies", 40, 8),
            ("cnt", 48, 4),
            ("flags", 52, 4),
            ("pid", 56, 4),
        ),
        "netfilter": _layout(
            ("pf", 16, 4), ("hooknum", 20, 4), ("priority", 24, 4, "signed"), ("flags", 28, 4)
        ),
        "tcx": _layout(("relative_fd", 16, 4), ("expected_revision", 24, 8)),
        "netkit": _layout(("relative_fd", 16, 4), ("expected_revision", 24, 8)),
    }
)
"""What differs from kind to kind of link: the members of the union in LINK_CREATE, by name. Those
of ``iter`` have no name of their own."""

RAW_TRACEPOINT_OPEN = _layout(("name", 0, 8), ("prog_fd", 8, 4), ("cookie", 16, 8))

LINK_DETACH = _layout(("link_fd", 0, 4))

PROG_BIND_MAP = _layout(("prog_fd", 0, 4), ("map_fd", 4, 4), ("flags", 8, 4))

ITER_CREATE = _layout(("link_fd", 0, 4), ("flags", 4, 4))

MAP_GET_NEXT_KEY = _layout(("map_fd", 0, 4), ("key", 8, 8), ("next_key", 16, 8))

OBJ = _layout(("pathname", 0, 8), ("bpf_fd", 8, 4), ("file_flags", 12, 4))
"""OBJ_PIN and OBJ_GET."""

GET_NEXT_ID = _layout(("start_id", 0, 4), ("next_id", 4, 4))
"""PROG_GET_NEXT_ID, MAP_GET_NEXT_ID, BTF_GET_NEXT_ID and LINK_GET_NEXT_ID."""

PROG_GET_FD_BY_ID = _layout(("prog_id", 0, 4))

MAP_GET_FD_BY_ID = _layout(("map_id", 0, 4), ("next_id", 4, 4), ("open_flags", 8, 4))

LINK_GET_FD_BY_ID = _layout(("link_id", 0, 4))

BTF_GET_FD_BY_ID = _layout(
    ("btf_id", 0, 4), ("next_id", 4, 4), ("open_flags", 8, 4), ("fd_by_id_token_fd", 12, 4)
)

MAP_INFO = _layout(
    ("type", 0, 4),
    ("id", 4, 4),
    ("key_size", 8, 4),
    ("value_size", 12, 4),
    ("max_entries", 16, 4),
    ("map_flags", 20, 4),
    ("name", 24, 16, "bytes"),
    ("ifindex", 40, 4),
    ("btf_vmlinux_value_type_id", 44, 4),
    ("netns_dev", 48, 8),
    ("netns_ino", 56, 8),
    ("btf_id", 64, 4),
    ("btf_key_type_id", 68, 4),
    ("btf_value_type_id", 72, 4),
    ("btf_vmlinux_id", 76, 4),
    ("map_extra", 80, 8),
    ("hash", 88, 8),
    ("hash_size", 96, 4),
)
"""``struct bpf_map_info``, which OBJ_GET_INFO_BY_FD fills for a map."""

PROG_INFO = _layout(
    ("type", 0, 4),
    ("id", 4, 4),
    ("tag", 8, 8, "bytes"),
    ("jited_prog_len", 16, 4),
    ("xlated_prog_len", 20, 4),
    ("jited_prog_insns", 24, 8),
    ("xlated_prog_insns", 32, 8),
    ("load_time", 40, 8),
    ("created_by_uid", 48, 4),
    ("nr_map_ids", 52, 4),
    ("map_ids", 56, 8),
    ("name", 64, 16, "bytes"),
    ("ifindex", 80, 4),
    ("netns_dev", 88, 8),
    ("netns_ino", 96, 8),
    ("nr_jited_ksyms", 104, 4),
    ("nr_jited_func_lens", 108, 4),
    ("jited_ksyms", 112, 8),
    ("jited_func_lens", 120, 8),
    ("btf_id", 128, 4),
    ("func_info_rec_size", 132, 4),
    ("func_info", 136, 8),
    ("nr_func_info", 144, 4),
    ("nr_line_info", 148, 4),
    ("line_info", 152, 8),
    ("jited_line_info", 160, 8),
    ("nr_jited_line_info", 168, 4),
    ("line_info_rec_size", 172, 4),
    ("jited_line_info_rec_size", 176, 4),
    ("nr_prog_tags", 180, 4),
    ("prog_tags", 184, 8),
    ("run_time_ns", 192, 8),
    ("run_cnt", 200, 8),
    ("recursion_misses", 208, 8),
    ("verified_insns", 216, 4),
    ("attach_btf_obj_id", 220, 4),
    ("attach_btf_id", 224, 4),
)
"""``struct bpf_prog_info``, which OBJ_GET_INFO_BY_FD fills for a program. Behind ``ifindex`` is one
word more, whose first bit is `gpl_compatible`."""

BTF_INFO = _layout(
    ("btf", 0, 8),
    ("btf_size", 8, 4),
    ("id", 12, 4),
    ("name", 16, 8),
    ("name_len", 24, 4),
    ("kernel_btf", 28, 4),
)
"""``struct bpf_btf_info``, which OBJ_GET_INFO_BY_FD fills for a BTF."""

LINK_INFO = _layout(("type", 0, 4), ("id", 4, 4), ("prog_id", 8, 4))
"""What ``struct bpf_link_info``, which OBJ_GET_INFO_BY_FD fills for a link, has for every kind."""
