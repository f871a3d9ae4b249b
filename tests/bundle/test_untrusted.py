"""A reader that trusts nothing."""

from __future__ import annotations

import contextlib
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bundle import layout, media, store
from bpfseal.bundle.archive import read_tar, write_tar
from bpfseal.bundle.layout import decode, encode
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.errors import BpfsealError, InputError, UnsupportedError
from support.layouts import add_blob, blob_path

from .support import BUNDLE, LOADER, Change, packed, repacked

FUZZ_ROUNDS = 4000
_SEED = 20261123


def refused(files: dict[str, bytes], match: str) -> None:
    with pytest.raises(InputError, match=match):
        decode(files, "x")


def test_files_that_nobody_changed_are_accepted() -> None:
    assert decode(repacked(), "x") == BUNDLE


# Digests and sizes


@pytest.mark.parametrize("path", [path for path in encode(BUNDLE) if path.startswith("blobs/")])
def test_every_blob_must_match_its_digest(path: str) -> None:
    files = encode(BUNDLE)
    refused(files | {path: files[path][:-1] + b"?"}, "content does not match")


@pytest.mark.parametrize("path", [path for path in encode(BUNDLE) if path.startswith("blobs/")])
def test_every_blob_must_have_its_size(path: str) -> None:
    files = encode(BUNDLE)
    refused(files | {path: files[path] + b"?"}, "bytes, not")


@pytest.mark.parametrize("path", list(encode(BUNDLE)))
def test_every_file_must_be_there(path: str) -> None:
    files = encode(BUNDLE)
    del files[path]
    refused(files, "missing")


def test_no_file_may_be_left_over() -> None:
    name = f"blobs/sha256/{64 * '0'}"
    refused(encode(BUNDLE) | {name: b"hidden"}, "nothing refers to this file")


@pytest.mark.parametrize(
    "digest", ["sha256:../../etc/passwd", "sha512:" + 128 * "0", "sha256:" + 64 * "G", ""]
)
def test_a_digest_is_sha256_in_lower_case_hexadecimal(digest: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"][0]["digest"] = digest

    refused(repacked(manifest=change), "digest is not")


def test_a_blob_that_many_descriptors_name_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["layers"] += [manifest["layers"][1]] * 20

    files = repacked(manifest=change)
    hashed: list[bytes] = []
    digest_of = layout.digest_of

    def counting(data: bytes) -> str:
        hashed.append(data)
        return digest_of(data)

    monkeypatch.setattr(layout, "digest_of", counting)
    refused(files, "layers of type")
    assert len(hashed) == len(set(hashed)) > 1


# Documents


def set_to(*path: str | int, value: object) -> Change:
    """Return a change of one place of a JSON document."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_to("schemaVersion", value=1), "schemaVersion"),
        (set_to("schemaVersion", value=True), "schemaVersion"),
        (set_to("mediaType", value="text/plain"), "mediaType"),
        (set_to("artifactType", value="application/vnd.bpfseal.bundle.v2"), "artifactType"),
        (set_to("annotations", value={}), "no annotation"),
        (set_to("annotations", "x", value=3), "x is not a printable text"),
        (set_to("manifests", value={}), "manifests is not an array"),
        (set_to("manifests", value=[{}] * 17), "manifests is not an array of at most 16"),
        (set_to("manifests", 0, value="text"), "not a JSON object"),
        (set_to("manifests", 0, "size", value=-1), "size is not a number"),
        (set_to("manifests", 0, "size", value=1 << 40), "size is not a number"),
        (set_to("manifests", 0, "size", value=1.0), "size is not a number"),
        (set_to("manifests", 0, "artifactType", value="x"), "artifactType"),
        (set_to("manifests", 0, "annotations", value={}), "differ in the scheme"),
        (set_to("manifests", 0, "urls", value=[]), "unknown field 'urls'"),
        (set_to("subject", value={}), "unknown field 'subject'"),
    ],
)
def test_a_wrong_field_of_the_index_is_named(change: Change, match: str) -> None:
    refused(repacked(index=change), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_to("layers", value=[]), "0 layers of type .*insns"),
        (lambda m: m["layers"].append(m["layers"][0]), "2 layers of type .*insns"),
        (lambda m: m["layers"].append(m["layers"][2]), "2 layers of type .*btf"),
        (set_to("layers", value=[{}] * 100), "layers is not an array of at most"),
        (lambda m: m["layers"].pop(4), "its certificate is missing"),
        (lambda m: m["layers"][3].pop("annotations"), "a certificate that no signature names"),
        (lambda m: m["layers"].pop(2), "scheme kfunc needs loader BTF"),
        (set_to("config", value=None), "config: not a JSON object"),
        (set_to("layers", 0, "data", value=""), "unknown field 'data'"),
    ],
)
def test_a_wrong_field_of_a_manifest_is_named(change: Change, match: str) -> None:
    refused(repacked(manifest=change), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (set_to("scheme", value="magic"), "scheme is 'magic'"),
        (set_to("scheme", value=["kfunc"]), "scheme is not a printable text"),
        (set_to("byteorder", value="middle"), "byteorder is 'middle'"),
        (set_to("name", value="a\nb"), "name is not a printable text"),
        (set_to("name", value="a" * 1025), "name is not a printable text"),
        (lambda c: c.pop("name"), "no field 'name'"),
        (set_to("extra", value=1), "unknown field 'extra'"),
        (set_to("maps", value=None), "maps is not an array"),
        (set_to("maps", 1, "type", value=-1), r"maps\[1\]: type is not a number"),
        (set_to("maps", 0, "value_size", value=1 << 32), r"maps\[0\]: value_size is not a number"),
        (set_to("maps", 0, "has_initial_value", value=1), "has_initial_value is not true or false"),
        (set_to("maps", 0, "pinned", value=1), r"maps\[0\]: unknown field 'pinned'"),
        (set_to("programs", 0, "section", value=7), r"programs\[0\]: section is not"),
        (set_to("programs", value=[{}] * 5000), "programs is not an array of at most 4096"),
        (lambda c: c["programs"][0].pop("insn_count"), "no field 'insn_count'"),
    ],
)
def test_a_wrong_field_of_the_config_is_named(change: Change, match: str) -> None:
    refused(repacked(config=change), match)


def test_an_unknown_media_type_is_unsupported() -> None:
    change = set_to("layers", 0, "mediaType", value="application/vnd.bpfseal.loader.insns.v2")
    with pytest.raises(UnsupportedError, match=r"unknown media type .*insns\.v2"):
        decode(repacked(manifest=change), "x")


def test_unknown_annotations_are_passed_over() -> None:
    assert decode(repacked(index=set_to("annotations", "org.example", value="x")), "x") == BUNDLE


def test_two_variants_of_one_scheme_are_refused() -> None:
    def change(index: dict[str, Any]) -> None:
        index["manifests"].append(dict(index["manifests"][0]))

    refused(repacked(index=change), "two variants for scheme kfunc")


def test_a_signature_beyond_the_limit_is_refused() -> None:
    files = encode(BUNDLE)

    def change(manifest: dict[str, Any]) -> None:
        files.pop(blob_path(manifest["layers"][3]))
        add_blob(files, manifest["layers"][3], bytes(65 << 10))

    changed = repacked(manifest=change)
    refused(files | changed, "size is not a number from 0 to 65536")


def test_there_are_at_most_so_many_signatures() -> None:
    signatures = tuple(Signature(b"%d" % number, b"") for number in range(33))
    with pytest.raises(InputError, match="more than 32 signatures"):
        encode(Bundle("x", (SignedLoader(LOADER, signatures),)))
    assert encode(Bundle("x", (SignedLoader(LOADER, signatures[:32]),)))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "utf-8-sig"])
def test_json_is_in_utf_8(encoding: str) -> None:
    # Python would read the others too, other readers would not: nobody may see something else.
    files = encode(BUNDLE)
    refused(files | {"index.json": files["index.json"].decode().encode(encoding)}, "not valid JSON")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"a": 1, "a": 1}',
        b"[" * 100_000,
        b'{"schemaVersion": ' + b"9" * 5000 + b"}",
        b'{"schemaVersion": NaN}',
        b'{"schemaVersion": "\\ud800"}',
        b" " * (media.MAX_INDEX_SIZE + 1),
    ],
    ids=lambda document: repr(document[:12]),
)
@pytest.mark.parametrize("path", ["index.json", "oci-layout"])
def test_no_json_document_is_too_strange(path: str, document: bytes) -> None:
    refused(encode(BUNDLE) | {path: document}, path)


# The archive


INDEX = "index.json"


def member(name: str, content: bytes = b"{}", **fields: Any) -> bytes:
    """Return a member as `write_tar` writes it, with fields of its header changed.

    Args:
        name: the name that is written.
        content: what it holds.
        **fields: `tarfile.TarInfo`'s attributes.
    """
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[329:345] = bytes(16)  # the numbers of devices, which only the standard library has
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + content + bytes(-len(content) % 512)


END = bytes(1024)


def test_a_member_in_the_writers_form_is_taken() -> None:
    assert read_tar(member(INDEX) + END, "x") == {INDEX: b"{}"}
    assert member(INDEX) + END == write_tar({INDEX: b"{}"})


@pytest.mark.parametrize(
    "name",
    [
        "../index.json",
        "/index.json",
        "./index.json",
        "index.json/",
        "//",
        "/",
        "blobs/",
        "blobs/sha256/",
        "blobs/sha256/../../index.json",
        f"blobs/sha256/../sha256/{64 * 'a'}",
        f"blobs/sha512/{64 * 'a'}",
        f"blobs/sha256/{64 * 'A'}",
        f"blobs/sha256/{63 * 'a'}",
        f"blobs//sha256/{64 * 'a'}",
        ".",
        "README",
        "index.json\n",
        "\x7fELF",
        "/* a comment",
    ],
)
@pytest.mark.parametrize("before", [b"", member(f"blobs/sha256/{64 * '0'}")], ids=["first", "next"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_only_the_layouts_own_names_are_members(name: str, before: bytes, kind: bytes) -> None:
    content = b"x" if kind == tarfile.REGTYPE else b""
    with pytest.raises(InputError):
        store.unpack(before + member(name, content, type=kind) + END, "x")


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.CHRTYPE},
        {"type": tarfile.BLKTYPE},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CONTTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
        {"type": tarfile.GNUTYPE_LONGNAME},
        {"type": tarfile.XHDTYPE},
        {"type": tarfile.XGLTYPE},
        {"type": tarfile.AREGTYPE},
        {"type": b"Z"},
        {"mode": 0o755},
        {"uid": 1},
        {"gid": 1},
        {"uname": "root"},
        {"gname": "root"},
        {"mtime": 1},
        {"linkname": "x"},
    ],
    ids=str,
)
def test_headers_have_one_form(fields: dict[str, Any]) -> None:
    data = member(INDEX, **fields) + END
    assert data != member(INDEX) + END
    with pytest.raises(InputError, match="not of the one form"):
        store.unpack(data, "x")


def changed(data: bytes, at: int, new: bytes) -> bytes:
    """Return an archive with bytes of its first header changed and the checksum made right."""
    header = bytearray(data[:512])
    header[at : at + len(new)] = new
    if not 148 <= at < 156:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (11, b"x"),  # behind the NUL of the name
        (124, b"          2 "),
        (124, b"0000000002 \0"),
        (124, b"0000000000000002"[:12]),
        (124, b"\x80" + bytes(10) + b"\2"),  # GNU: a number in base 256
        (124, b"\xff" * 12),
        (124, b"+0000000002\0"),
        (148, b"0000000\0"),
        (148, b" 12345\0 "),
        (257, b"ustar  \0"),  # GNU
        (263, b"  "),
        (345, b"blobs"),
        (500, b"x"),
    ],
)
def test_numbers_and_marks_have_one_form(at: int, new: bytes) -> None:
    with pytest.raises(InputError):
        store.unpack(changed(member(INDEX), at, new) + END, "x")


def test_members_are_in_the_order_of_their_names_and_occur_once() -> None:
    one, two = member(f"blobs/sha256/{64 * '0'}"), member(INDEX)
    assert list(read_tar(one + two + END, "x")) == [f"blobs/sha256/{64 * '0'}", INDEX]
    for data in (two + one, two + two, one + two + one):
        with pytest.raises(InputError, match="is not behind"):
            store.unpack(data + END, "x")


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1023), bytes(1025), bytes(1536)])
def test_the_end_is_two_blocks_of_zeros(end: bytes) -> None:
    with pytest.raises(InputError, match=r"cut off|end of the archive"):
        store.unpack(member(INDEX) + end, "x")


def test_another_archive_behind_the_end_is_refused() -> None:
    data = store.pack(BUNDLE)
    with pytest.raises(InputError, match="end of the archive"):
        store.unpack(data + data, "x")


def test_there_are_at_most_so_many_files() -> None:
    names = (f"blobs/sha256/{number:064x}" for number in range(media.MAX_FILES + 1))
    data = packed(dict.fromkeys(names, b""))
    with pytest.raises(InputError, match="more than 1024 files"):
        store.unpack(data, "x")


def test_a_bundle_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    data = store.pack(BUNDLE)
    monkeypatch.setattr("bpfseal.bundle.archive.MAX_BUNDLE_SIZE", len(data) - 1)
    with pytest.raises(InputError, match="larger than"):
        store.unpack(data, "x")


def test_nothing_hides_behind_a_member_or_the_end() -> None:
    data = store.pack(BUNDLE)
    with pytest.raises(InputError, match="end of the archive"):
        store.unpack(data + b"hidden", "x")
    padding = data.index(b"\0" * 8, 512 + len(b"metadata"))
    assert padding < 1024
    with pytest.raises(InputError, match="bytes behind member"):
        store.unpack(data[:1023] + b"!" + data[1024:], "x")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x7fELF" + bytes(2000),
        bytes(1024),
        b"PK\x03\x04" * 400,
        b"/* a header */\n#include <bpf/skel_internal.h>\n",
    ],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"empty|bundle"):
        store.unpack(data, "x")


def test_a_bundle_that_is_cut_off_anywhere_is_refused() -> None:
    data = store.pack(BUNDLE)
    for length in (*range(0, len(data), 97), len(data) - 1):
        with pytest.raises(InputError):
            store.unpack(data[:length], "x")


def test_a_flipped_bit_never_goes_unnoticed_and_raises_nothing_but_bpfseal_errors() -> None:
    data = store.pack(BUNDLE)
    chance = random.Random(_SEED)  # noqa: S311 - damage, not secrets
    for _ in range(FUZZ_ROUNDS):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(BpfsealError):
            # The JSON text that no digest covers may differ; the loaders may not.
            assert store.unpack(bytes(damaged), "x").variants == BUNDLE.variants


def test_documents_with_right_digests_and_wrong_bytes_raise_nothing_but_bpfseal_errors() -> None:
    chance = random.Random(_SEED)  # noqa: S311 - damage, not secrets

    def damage(document: dict[str, Any]) -> None:
        place: Any = document
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            key = chance.choice(list(keys))
            if chance.random() < 0.4 or not isinstance(place[key], dict | list):
                place[key] = chance.choice([None, True, -1, 1 << 70, "", "\0", [], {}, [[]], 0.5])
                return
            place = place[key]

    parts: list[Callable[[], dict[str, bytes]]] = [
        lambda: repacked(index=damage),
        lambda: repacked(manifest=damage),
        lambda: repacked(config=damage),
    ]
    for _ in range(FUZZ_ROUNDS // 4):
        with contextlib.suppress(BpfsealError):
            decode(chance.choice(parts)(), "x")


# The directory form


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.write_bundle(BUNDLE, f"{tmp_path}/bundle/")
    return tmp_path / "bundle"


def test_a_link_in_a_bundle_directory_is_refused(folder: Path) -> None:
    secret = folder.parent / "secret"
    (folder / "index.json").rename(secret)
    (folder / "index.json").symlink_to(secret)
    with pytest.raises(InputError):
        store.read_bundle(folder)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_a_linked_folder_in_a_bundle_directory_is_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(InputError, match="does not belong"):
        store.read_bundle(folder)


def test_a_pipe_in_a_bundle_directory_does_not_block(folder: Path) -> None:
    (folder / "oci-layout").unlink()
    os.mkfifo(folder / "oci-layout")
    with pytest.raises(InputError, match="not a regular file"):
        store.read_bundle(folder)


def test_a_foreign_file_in_a_bundle_directory_is_refused(folder: Path) -> None:
    (folder / "README").touch()
    with pytest.raises(InputError, match=r"'README' does not belong"):
        store.read_bundle(folder)


def test_a_directory_without_a_layout_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is this a bundle"):
        store.read_bundle(tmp_path)
