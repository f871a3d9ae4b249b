"""One reading of one file: what a file is, is decided once, strictly, for verbs and library."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

import bpfseal
from bpfseal.bundle import store
from bpfseal.bundle.archive import write_tar
from bpfseal.bundle.kind import Kind, kind_of
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.reading import bundle_of, read_bundle_file
from bpfseal.errors import InputError
from support.files import EXAMPLE
from support.lskel_writer import header_of

from .verifying import signed, tiny

BUNDLE = Bundle("tiny", (signed(tiny("loadtime")),))
ARCHIVE = store.pack(BUNDLE)
OBJECT = EXAMPLE.read_bytes()
HEADER = header_of(BUNDLE.variants[0]).encode()
INCLUDE = b"#include <bpf/skel_internal.h>"


def archive_of(*members: tuple[str, bytes, bytes]) -> bytes:
    """Return what the standard library makes of (name, content, type)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def with_mark_of_tar(data: bytes) -> bytes:
    """Return a file with the mark of a tar archive at its place."""
    return data[:257] + b"ustar" + data[262:]


def behind_a_directory(name: str) -> bytes:
    """Return a bundle whose archive begins with a directory of this name."""
    files = encode(BUNDLE)
    members = [(path, content, tarfile.REGTYPE) for path, content in sorted(files.items())]
    return archive_of((name, b"", tarfile.DIRTYPE), *members)


def carrying(content: bytes) -> bytes:
    """Return an archive in the one form that holds a blob with these bytes."""
    neutral = content.replace(INCLUDE, b"x" * len(INCLUDE))
    return write_tar({f"blobs/sha256/{64 * '0'}": neutral}).replace(neutral, content)


@pytest.mark.parametrize(
    ("data", "kind"), [(OBJECT, Kind.OBJECT), (ARCHIVE, Kind.ARCHIVE), (HEADER, Kind.HEADER)]
)
def test_each_kind_is_known_by_its_first_bytes(data: bytes, kind: Kind) -> None:
    assert kind_of(data, "x") is kind


AMBIGUOUS = {
    "a tar that begins with //, which a compiler takes for a comment": behind_a_directory("//"),
    "a tar that begins with /*": behind_a_directory("/*"),
    "a tar that begins with a directive": behind_a_directory("#if 0"),
    "a tar that begins like an object": behind_a_directory("\x7fELF"),
    "a tar with a directory": behind_a_directory("blobs"),
    "a tar with the current directory": behind_a_directory("."),
    "a tar that holds a header": carrying(HEADER),
    "a tar that holds the line of a header": carrying(INCLUDE),
    "an object with the mark of a tar": with_mark_of_tar(OBJECT),
    "an object with the line of a header": OBJECT + INCLUDE,
    "an object with a header behind it": OBJECT + HEADER,
    "a header with the mark of a tar": with_mark_of_tar(HEADER),
    "a header with a tar behind it": HEADER + ARCHIVE,
    "a header with a NUL byte at its end": HEADER + b"\0",
    "a header with a NUL byte in a comment": HEADER.replace(b"/* ", b"/* \0 ", 1),
    "a header with an escape character": HEADER.replace(b"/* ", b"/* \x1b ", 1),
    "a header with one line end of another system": HEADER.replace(b"\n", b"\r\n", 1),
    "a header with a carriage return within a line": HEADER.replace(b"/* ", b"/* \r ", 1),
    "a header with a form feed": HEADER.replace(b"\n", b"\n\f", 1),
    "a header that is not UTF-8": HEADER.replace(b"/* ", b"/* \xff ", 1),
    "a header behind two byte order marks": 2 * b"\xef\xbb\xbf" + HEADER,
    "a header behind an empty line": b"\n" + HEADER,
    "a header behind a directive": b"#if 0\n" + HEADER,
    "a header behind a line comment": b"// x\n" + HEADER,
    "a header behind garbage": b"x" + HEADER,
    "a tar behind garbage": b"x" + ARCHIVE,
    "an object behind garbage": b"x" + OBJECT,
    "a tar with garbage behind it": ARCHIVE + b"x",
    "a tar with zeros behind it": ARCHIVE + bytes(512),
    "a tar behind a tar": ARCHIVE + ARCHIVE,
    "nothing": b"",
    "zeros": bytes(2048),
    "text": b"hello\n" * 100,
    "a compressed bundle": b"\x1f\x8b\x08" + bytes(100),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_or_none_is_refused(case: str, tmp_path: Path) -> None:
    data = AMBIGUOUS[case]
    with pytest.raises(InputError):
        bundle_of(data, "x")
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(InputError):
        read_bundle_file(path)
    with pytest.raises(InputError):
        bpfseal.read(data)
    with pytest.raises(InputError):
        bpfseal.load(path)


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbf" + HEADER, HEADER.replace(b"\n", b"\r\n")],
    ids=["byte order mark", "CRLF"],
)
def test_a_header_may_come_from_an_editor_of_another_system(data: bytes) -> None:
    assert bpfseal.read(data) == bpfseal.read(HEADER)


def test_an_object_is_no_bundle() -> None:
    with pytest.raises(InputError, match="an object, not a bundle"):
        bundle_of(OBJECT, "x")


@pytest.mark.parametrize("data", [ARCHIVE, HEADER], ids=["archive", "header"])
def test_the_library_reads_what_the_verbs_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    found = bundle_of(data, "x")
    assert found.variants[0].loader.insns == BUNDLE.variants[0].loader.insns
    assert bpfseal.read(path) == bpfseal.read(str(path)) == bpfseal.read(data) == found
    assert bpfseal.read(bytearray(data)) == bpfseal.read(memoryview(data)) == found


def test_a_directory_is_read_as_one(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, f"{tmp_path}/bundle/")
    assert bpfseal.read(tmp_path / "bundle") == BUNDLE


def test_what_no_reader_would_take_is_not_packed() -> None:
    with pytest.raises(InputError, match="ambiguous"):
        write_tar({f"blobs/sha256/{64 * '0'}": INCLUDE})


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "missing/file"])
def test_a_path_that_cannot_be_is_an_input_error(path: str) -> None:
    with pytest.raises(InputError):
        bpfseal.read(path)
