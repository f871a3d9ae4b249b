"""The reference tool: Debian's bpftool (suite trixie-backports, scheme ``loadtime``).

It needs newer libraries than some machines have, so it is unpacked with its own and started through
their loader.

Example:
    >>> Reference(Path("build")).run("version").returncode
    0
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from debian import fetch, unpack

REFERENCE = "bpftool/trixie-backports"
LIBRARIES = ("libc6", "libelf1t64", "libssl3t64", "libzstd1", "zlib1g", "libcap2")


class Reference:
    """The reference tool, unpacked into a folder of its own.

    Raises:
        FetchError: it cannot be fetched.
    """

    def __init__(self, directory: Path) -> None:
        self._root = directory / "reference"
        self._root.mkdir(parents=True, exist_ok=True)
        suites = ["trixie", "trixie-backports"]
        for package in fetch([REFERENCE, *LIBRARIES], suites, directory / "downloads/reference"):
            unpack(package, self._root)
        (self._loader,) = self._root.glob("usr/lib*/ld-linux-*.so.2")
        (libraries,) = self._root.glob("usr/lib/*-linux-gnu/libc.so.6")
        self._libraries = libraries.parent

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the tool."""
        tool = self._root / "usr/sbin/bpftool"
        command = [*map(str, (self._loader, "--library-path", self._libraries, tool)), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)
