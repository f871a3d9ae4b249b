"""Cut the compiled BPF objects out of Debian's packages.

Tools of libbpf-tools carry their object in their data section: it is found by its ELF header
(64-bit, machine EM_BPF) and ends behind its section header table. Other packages ship ``.o`` files.

Usage: fetch_objects.py DIRECTORY [SUITE/PACKAGE ...]
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from debian import FetchError, fetch, unpack

DEFAULT = ("bookworm/libbpf-tools",)
_EM_BPF = 247
_HEADER_SIZE = 64
_MAGIC = b"\x7fELF\x02"


def objects_in(data: bytes) -> Iterator[bytes]:
    """Yield the BPF objects inside a file, or the file itself if it is one."""
    start = data.find(_MAGIC)
    while start >= 0:
        header = data[start : start + _HEADER_SIZE]
        if len(header) == _HEADER_SIZE and struct.unpack_from("<H", header, 18)[0] == _EM_BPF:
            (sections,) = struct.unpack_from("<Q", header, 40)
            entry_size, count = struct.unpack_from("<HH", header, 58)
            end = start + sections + entry_size * count
            if end <= len(data):
                yield data[start:end]
        start = data.find(_MAGIC, start + 4)


def fetch_objects(suite: str, package: str, directory: Path) -> int:
    """Write the objects of a package to ``directory/SUITE-PACKAGE`` and return their number."""
    target = directory / f"{suite}-{package}"
    downloads = directory / "downloads" / suite
    tree = downloads / package
    tree.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    unpack(fetch([package], [suite], downloads)[0], tree)
    count = 0
    for path in sorted(tree.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        for data in objects_in(path.read_bytes()):
            name = path.name.removeprefix("bpf-").removesuffix(".o").removesuffix(".bpf")
            (target / f"{name}.bpf.o").write_bytes(data)
            count += 1
    return count


def main(arguments: list[str]) -> int:
    """Fetch the objects of each package."""
    directory = Path(arguments[0])
    for entry in arguments[1:] or DEFAULT:
        suite, _, package = entry.partition("/")
        try:
            count = fetch_objects(suite, package, directory)
        except FetchError as error:
            print(f"{entry}: {error}", file=sys.stderr)
            return 1
        print(f"{entry}: {count} objects")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
