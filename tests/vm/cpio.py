"""Write initramfs archives: the "newc" form of cpio (Documentation/driver-api/early-userspace)."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath


class Archive:
    """A growing archive; directories are added as they are needed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def add(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._entry(name, stat.S_IFREG | mode, data)

    def add_file(self, source: Path, name: str | None = None) -> None:
        """Add a file of this machine, at the same place unless `name` says another."""
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        self.add(name or str(source), source.read_bytes(), mode)

    def add_directory(self, name: str) -> None:
        """Add an empty directory."""
        self._entry(name, stat.S_IFDIR | 0o755)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def add_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def encode(self) -> bytes:
        """Return the archive; several may be concatenated."""
        self._names.discard("TRAILER!!!")
        body = b"".join([*self._parts, _record("TRAILER!!!", 0, b"", (0, 0), 0)])
        return body + bytes(-len(body) % 512)

    def _entry(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        name = name.strip("/")
        if name in self._names:
            return
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self.add_directory(str(parent))
        self._names.add(name)
        self._parts.append(_record(name, mode, data, device, len(self._names)))


def _record(name: str, mode: int, data: bytes, device: tuple[int, int], inode: int) -> bytes:
    text = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + text
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)
