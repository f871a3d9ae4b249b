"""How much an object may hold, so that a loader can carry it: checked before anything is made."""

from __future__ import annotations

from typing import Final

MAX_MAPS: Final = 64
"""Maps of a loader (``MAX_USED_MAPS``, tools/lib/bpf/gen_loader.c)."""

MAX_VALUE_SIZE: Final = 0x7FFFFFFF
"""Bytes of the largest value of an array (``array_map_alloc_check``, kernel/bpf/arraymap.c)."""

MAX_METADATA: Final = 64 << 20
"""Bytes of the largest metadata. Instructions of a loader would reach 512 MiB into a map's value
(``BPF_MAX_VAR_OFF`` in ``resolve_pseudo_ldimm64``, kernel/bpf/verifier.c)."""

MAX_GROWTH: Final = 16 << 20
"""Bytes that a loader holds beyond those of the object's file: zeros of .bss and .kconfig, and
subprograms that are appended to a second program and to further ones. A few bytes of an object can
ask for any number of them, and all are signed, shipped and hashed."""

MAX_NAME: Final = 8192
"""Bytes of the name of a section or symbol. A section may hold a path (4,096 bytes, PATH_MAX) and
a function's name in it; names of BTF end at 512 bytes (KSYM_NAME_LEN)."""
