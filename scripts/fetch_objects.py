"""Cut the compiled BPF objects out of the tools in Debian's packages.

Each tool of libbpf-tools carries its object in its data section. An object is found by its ELF
header (64-bit, machine EM_BPF) and ends behind its section header table.

Usage: fetch_objects.py DIRECTORY
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "libbpf-tools"
_EM_BPF = 247
_HEADER_SIZE = 64


def objects_in(data: bytes) -> Iterator[bytes]:
    """Yield the BPF objects inside a file, the file itself left out."""
    start = data.find(b"\x7fELF\x02", 1)
    while start > 0:
        header = data[start : start + _HEADER_SIZE]
        if len(header) == _HEADER_SIZE and struct.unpack_from("<H", header, 18)[0] == _EM_BPF:
            (sections,) = struct.unpack_from("<Q", header, 40)
            entry_size, count = struct.unpack_from("<HH", header, 58)
            end = start + sections + entry_size * count
            if end <= len(data):
                yield data[start:end]
        start = data.find(b"\x7fELF\x02", start + 4)


def main(directory: Path) -> int:
    """Fetch the package, unpack it, and write its objects to ``DIRECTORY/PACKAGE``."""
    target = directory / PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        # "apt-get update" may be needed first on a machine that never asked for package lists
        subprocess.run(
            ["apt-get", "download", "-o", "APT::Sandbox::User=root", PACKAGE], cwd=work, check=True
        )
        (package,) = Path(work).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, "tree"], cwd=work, check=True)
        count = 0
        for tool in sorted(Path(work, "tree/usr/sbin").iterdir()):
            if tool.is_symlink():
                continue
            for data in objects_in(tool.read_bytes()):
                (target / f"{tool.name.removeprefix('bpf-')}.bpf.o").write_bytes(data)
                count += 1
    print(f"{count} objects in {target}")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
