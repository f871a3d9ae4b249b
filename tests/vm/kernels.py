"""Debian's cloud kernels: the newest of each series that the archive still has."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import debian  # noqa: E402 (scripts are no package)

FetchError = debian.FetchError

SUITES = ("trixie", "trixie-backports")
SERIES = ("6.12", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3")
DOWNLOADS = ROOT / "build" / "vm"

_PACKAGE = re.compile(r"linux-(?:binary|image)-(\d+\.\d+)\.(\d+)\+deb13-cloud-amd64")


@dataclass(frozen=True)
class Kernel:
    """A kernel that boots: its release, and the uncompressed image."""

    release: str
    image: Path


def newest_packages() -> dict[str, str]:
    """Return the newest package of each series.

    Raises:
        debian.FetchError: the archive cannot be asked.
    """
    best: dict[str, tuple[int, bool, str]] = {}
    for name in debian.names(SUITES, DOWNLOADS):
        match = _PACKAGE.fullmatch(name)
        if match:
            # of one version, the package without modules is smaller
            rank = int(match[2]), name.startswith("linux-binary"), name
            best[match[1]] = max(rank, best.get(match[1], rank))
    return {series: name for series, (_, _, name) in best.items()}


def fetch_kernel(package: str) -> Kernel:
    """Download a kernel and uncompress its image.

    Raises:
        debian.FetchError: the archive does not have it.
    """
    folder = DOWNLOADS / package
    image = folder / "vmlinux"
    match = _PACKAGE.fullmatch(package)
    release = f"{match[1]}.{match[2]}" if match else package
    if not image.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (archive,) = debian.fetch([package], SUITES, DOWNLOADS)
        tree = folder / "tree"
        tree.mkdir(exist_ok=True)
        debian.unpack(archive, tree)
        (packed,) = (path for path in tree.rglob("vmlinuz*") if path.is_file())
        unpacked = folder / "vmlinux.part"
        unpacked.write_bytes(_uncompress(packed.read_bytes()))
        unpacked.rename(image)
        shutil.rmtree(tree)
    return Kernel(release, image)


def _uncompress(bzimage: bytes) -> bytes:
    """Return the ELF file inside a bzImage, which boots faster under emulation.

    Source: Documentation/arch/x86/boot.rst, payload_offset and payload_length.
    """
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        done = subprocess.run(["zstd", "-dcq"], input=payload, capture_output=True, check=False)
        return done.stdout
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    raise debian.FetchError(f"kernel payload begins with {payload[:6].hex()}")
