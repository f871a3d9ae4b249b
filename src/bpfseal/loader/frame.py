"""The stack frame of a loader program (``struct loader_stack``, tools/lib/bpf/gen_loader.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bpfseal.bpf.uapi import SHA256_SIZE

MAX_STACK_PROGRAMS: Final = 32
"""Program fds that fit into the frame. With more functions the fds are kept in the metadata."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Offsets of the frame's fields from the frame pointer; all are negative.

    The fields are u32 btf_fd, u32 inner_map_fd, in the kfunc scheme u64 metadata_hash[4], and
    u32 prog_fd[32].
    """

    has_hash: bool

    @property
    def size(self) -> int:
        """Bytes of the frame."""
        return 8 + self._hash_size + 4 * MAX_STACK_PROGRAMS

    @property
    def _hash_size(self) -> int:
        return SHA256_SIZE if self.has_hash else 0

    @property
    def btf_fd(self) -> int:
        """Offset of the fd of the object's BTF."""
        return -self.size

    @property
    def inner_map_fd(self) -> int:
        """Offset of the fd of the map that shows what inner maps look like."""
        return -self.size + 4

    @property
    def metadata_hash(self) -> int:
        """Offset of the expected SHA-256 of the metadata."""
        return -self.size + 8

    def prog_fd(self, index: int) -> int:
        """Offset of the fd of a program."""
        return -self.size + 8 + self._hash_size + 4 * index
