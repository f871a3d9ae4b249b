"""Bundles in a registry: a real one on loopback, reached over connections that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("oras", reason="the extra bpfseal[oci] is not installed")

import requests

from bpfseal.bundle import media, transport
from bpfseal.bundle.archive import write_tar
from bpfseal.bundle.layout import blob_path, digest_of, encode
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.reference import Access, Reference, parse_reference
from bpfseal.bundle.registry import pull, push
from bpfseal.bundle.transport import Connection
from bpfseal.errors import BpfsealError, CapabilityError, InputError, UsageError
from bpfseal.loader.model import Loader
from support import registry as server
from support.registry import CutError, Registry, cut_after, proxied, replacing, running, silent

from .support import BUNDLE, LOADER

TWO_SCHEMES = Bundle(
    "execsnoop_bpf",
    (
        SignedLoader(LOADER, (Signature(b"0\x03CMS", b"0\x04cert"), Signature(b"0\x03two", b""))),
        SignedLoader(Loader("loadtime", "execsnoop_bpf", bytes(16), LOADER.metadata, b"", (), ())),
    ),
)
FILES = encode(TWO_SCHEMES)
INDEX_DIGEST = digest_of(FILES["index.json"])
PLAIN = Access(plain_http=True, timeout=5)
IMPATIENT = Access(plain_http=True, timeout=0.3)
KINDS = {"Accept": f"{media.INDEX_TYPE}, {media.MANIFEST_TYPE}"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PAUSE", 0.0)


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's Docker configuration and .netrc takes part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry"), storage={"inmemory": {}}) as started:
        yield started


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository for each test."""
    return "".join(c for c in request.node.name.lower() if c.isalnum())[:80]


def at(place: Any, name: str, tag: str = "1") -> Reference:
    return parse_reference(f"{place.host}/{name}:{tag}")


def is_there(registry: Registry, name: str) -> bool:
    """Whether anything is under the tag, seen without a proxy."""
    url = f"http://{registry.host}/v2/{name}/manifests/1"
    return requests.get(url, headers=KINDS, timeout=5).status_code == 200


# There and back


def test_a_pulled_bundle_is_byte_identical(registry: Registry, name: str) -> None:
    assert push(FILES, at(registry, name), PLAIN) == INDEX_DIGEST
    assert write_tar(pull(at(registry, name), PLAIN)) == write_tar(FILES)


def test_documents_that_another_tool_wrote_stay_as_they_are(registry: Registry, name: str) -> None:
    spaced = json.dumps(json.loads(FILES["index.json"]), indent=2).encode()
    files = FILES | {"index.json": spaced}
    assert push(files, at(registry, name), PLAIN) == digest_of(spaced)
    assert pull(at(registry, name), PLAIN) == files


def test_pushing_again_changes_nothing(registry: Registry, name: str) -> None:
    assert push(FILES, at(registry, name), PLAIN) == push(FILES, at(registry, name), PLAIN)


def test_a_bundle_can_be_pulled_by_its_digest(registry: Registry, name: str) -> None:
    digest = push(FILES, at(registry, name), PLAIN)
    assert is_there(registry, name)
    push(encode(BUNDLE), at(registry, name), PLAIN)  # the tag moves on
    assert pull(parse_reference(f"{registry.host}/{name}@{digest}"), PLAIN) == FILES


def test_a_bundle_is_pushed_to_a_tag(registry: Registry, name: str) -> None:
    reference = parse_reference(f"{registry.host}/{name}@{INDEX_DIGEST}")
    with pytest.raises(UsageError, match="to a tag"):
        push(FILES, reference, PLAIN)


def test_empty_metadata_goes_there_and_back(registry: Registry, name: str) -> None:
    loader = Loader("loadtime", "x", bytes(8), b"", b"", (), ())
    files = encode(Bundle("x", (SignedLoader(loader),)))
    push(files, at(registry, name), PLAIN)
    assert pull(at(registry, name), PLAIN) == files


def test_a_tool_that_knows_nothing_but_oci_can_copy_a_bundle(registry: Registry, name: str) -> None:
    push(FILES, at(registry, name), PLAIN)
    source, target = (f"http://{registry.host}/v2/{name}{end}" for end in ("", "copy"))

    def copy_manifest(reference: str) -> None:
        answer = requests.get(f"{source}/manifests/{reference}", headers=KINDS, timeout=5)
        document = answer.json()
        for entry in document.get("manifests", ()):
            copy_manifest(entry["digest"])
        for entry in (*document.get("layers", ()), document.get("config")):
            if entry:
                blob = requests.get(f"{source}/blobs/{entry['digest']}", timeout=5).content
                where = requests.post(f"{target}/blobs/uploads/", timeout=5).headers["Location"]
                done = requests.put(where, params={"digest": entry["digest"]}, data=blob, timeout=5)
                assert done.status_code == 201
        kind = {"Content-Type": document["mediaType"]}
        url = f"{target}/manifests/{reference}"
        assert requests.put(url, data=answer.content, headers=kind, timeout=5).status_code == 201

    copy_manifest("1")
    assert pull(at(registry, f"{name}copy"), PLAIN) == FILES


def test_what_is_no_bundle_is_not_pushed(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match="nothing refers to this file"):
        push(FILES | {f"blobs/sha256/{64 * '0'}": b"x"}, at(registry, name), PLAIN)
    assert not is_there(registry, name)


# Nothing from the registry is trusted


def test_a_bundle_that_is_not_there_is_an_input_error(registry: Registry, name: str) -> None:
    with pytest.raises(InputError, match="not found in the registry"):
        pull(at(registry, name), PLAIN)


def manifest_of(files: dict[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    index = json.loads(files["index.json"])
    return index, json.loads(files[blob_path(index["manifests"][0]["digest"])])


def put_by_hand(registry: Registry, name: str, manifest: object, index: dict[str, Any]) -> None:
    """Put documents into the registry that `push` would refuse."""
    push(encode(BUNDLE), at(registry, name, "good"), PLAIN)
    connection = Connection(at(registry, name), PLAIN)
    data = json.dumps(manifest).encode()
    entry = {"digest": digest_of(data), "size": len(data)}
    index["manifests"][0] |= entry
    connection.put(f"manifests/{entry['digest']}", data, media.MANIFEST_TYPE)
    connection.put("manifests/1", json.dumps(index).encode(), media.INDEX_TYPE)
    connection.close()


def test_a_blob_that_is_larger_than_it_should_be_is_refused(registry: Registry, name: str) -> None:
    index, manifest = manifest_of(encode(BUNDLE))
    manifest["layers"][1]["size"] = 5
    put_by_hand(registry, name, manifest, index)
    with pytest.raises(InputError, match="larger than 5 bytes"):
        pull(at(registry, name), PLAIN)


def test_a_blob_that_is_smaller_than_it_should_be_is_refused(registry: Registry, name: str) -> None:
    index, manifest = manifest_of(encode(BUNDLE))
    manifest["layers"][1]["size"] = 500
    put_by_hand(registry, name, manifest, index)
    with pytest.raises(InputError, match="blob has 22 bytes, not 500"):
        pull(at(registry, name), PLAIN)


def test_a_size_beyond_the_limits_is_not_even_asked_for(registry: Registry, name: str) -> None:
    index, manifest = manifest_of(encode(BUNDLE))
    manifest["layers"][1]["size"] = media.SIZE_LIMITS[media.METADATA_TYPE] + 1
    put_by_hand(registry, name, manifest, index)
    with proxied(registry) as proxy, pytest.raises(InputError, match="size is not a number"):
        pull(at(proxy, name), PLAIN)
    assert manifest["layers"][1]["digest"].encode() not in proxy.seen


def test_an_image_of_somebody_else_is_refused(registry: Registry, name: str) -> None:
    index, manifest = manifest_of(encode(BUNDLE))
    del index["artifactType"]
    put_by_hand(registry, name, manifest, index)
    with pytest.raises(InputError, match="no field 'artifactType'"):
        pull(at(registry, name), PLAIN)


@pytest.mark.parametrize(
    ("needle", "match"),
    [
        (b"metadata of the loader", "content does not match"),
        (b'"schemaVersion":2', "does not match"),
        (b'"insn_count":120', "content does not match"),
    ],
    ids=["blob", "index and manifests", "config"],
)
def test_a_changed_byte_on_the_way_here_is_refused(
    registry: Registry, name: str, needle: bytes, match: str
) -> None:
    push(FILES, at(registry, name), PLAIN)
    changed = needle[:-1] + b"3"
    with (
        proxied(registry, to_client=replacing(needle, changed)) as proxy,
        pytest.raises(InputError, match=match),
    ):
        pull(at(proxy, name), PLAIN)


def test_under_a_digest_nothing_else_is_taken(registry: Registry, name: str) -> None:
    push(FILES, at(registry, name), PLAIN)
    other = digest_of(b"other")
    swap = replacing(other.encode(), INDEX_DIGEST.encode())
    with (
        proxied(registry, to_server=swap) as proxy,
        pytest.raises(InputError, match="the index does not match"),
    ):
        pull(parse_reference(f"{proxy.host}/{name}@{other}"), PLAIN)


# Connections that fail


@pytest.mark.parametrize("count", [0, 40, 300, 700, 1000, 1500, 2300, 4000])
def test_a_download_that_is_cut_off_is_whole_or_an_error(
    registry: Registry, name: str, count: int
) -> None:
    push(FILES, at(registry, name), PLAIN)
    with proxied(registry, to_client=cut_after(count)) as proxy:
        with pytest.raises(CapabilityError, match="breaks off"):
            pull(at(proxy, name), PLAIN)
        assert proxy.connections <= transport.ATTEMPTS + 1


@pytest.mark.parametrize("count", [0, 300, 1000])
def test_a_download_that_is_cut_off_once_is_tried_again(
    registry: Registry, name: str, count: int
) -> None:
    push(FILES, at(registry, name), PLAIN)
    with proxied(registry, to_client=cut_after(count, once=True)) as proxy:
        assert pull(at(proxy, name), PLAIN) == FILES


@pytest.mark.parametrize("count", [0, 300, 1500, 3000, 5000, 7000])
def test_an_upload_that_is_cut_off_leaves_no_tag(registry: Registry, name: str, count: int) -> None:
    with proxied(registry, to_server=cut_after(count)) as proxy:
        with pytest.raises(CapabilityError, match="breaks off"):
            push(FILES, at(proxy, name), PLAIN)
        assert proxy.connections <= transport.ATTEMPTS + 1
    assert not is_there(registry, name)


@pytest.mark.parametrize("count", [0, 1500, 5000])
def test_an_upload_that_is_cut_off_once_is_tried_again(
    registry: Registry, name: str, count: int
) -> None:
    with proxied(registry, to_server=cut_after(count, once=True)) as proxy:
        push(FILES, at(proxy, name), PLAIN)
    assert pull(at(registry, name), PLAIN) == FILES


@pytest.mark.parametrize(
    "needle",
    [b"metadata of the loader", b'"insn_count":120', b'"annotations":{"vnd.bpfseal.name"'],
    ids=["blob", "config", "index"],
)
def test_a_changed_byte_on_the_way_there_leaves_no_tag(
    registry: Registry, name: str, needle: bytes
) -> None:
    changed = needle.replace(b"o", b"0")
    with (
        proxied(registry, to_server=replacing(needle, changed)) as proxy,
        pytest.raises(CapabilityError, match="DIGEST_INVALID"),
    ):
        push(FILES, at(proxy, name), PLAIN)
    assert not is_there(registry, name)


def test_an_index_that_was_changed_under_its_tag_is_noticed(registry: Registry, name: str) -> None:
    seen = 0

    def change_second(data: bytes) -> bytes:
        nonlocal seen
        needle = b'"annotations":{"vnd.bpfseal.name":"execsnoop_bpf"}'
        seen += needle in data
        return data.replace(needle, needle.replace(b"oop", b"00p")) if seen == 2 else data

    with (
        proxied(registry, to_server=change_second) as proxy,
        pytest.raises(CapabilityError, match="other bytes than were sent"),
    ):
        push(FILES, at(proxy, name), PLAIN)


@pytest.mark.parametrize("needle", [b"/blobs/uploads/", b"PUT /v2/", b"manifests/sha256:"])
def test_a_registry_that_dies_midway_leaves_no_tag(
    tmp_path: Path, name: str, needle: bytes
) -> None:
    with running(tmp_path / "dies") as registry:

        def kill(data: bytes) -> bytes:
            if needle in data:
                registry.stop()
            return data

        with (
            proxied(registry, to_server=kill) as proxy,
            pytest.raises(CapabilityError, match="breaks off"),
        ):
            push(FILES, at(proxy, name), PLAIN)
        registry.start()
        assert not is_there(registry, name)
        push(FILES, at(registry, name), PLAIN)
        assert pull(at(registry, name), PLAIN) == FILES


def test_a_registry_that_dies_while_it_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    with running(tmp_path / "dies") as registry:
        push(FILES, at(registry, name), PLAIN)

        def kill(data: bytes) -> bytes:
            if b"GET" in data and b"/blobs/" in data:
                registry.stop()
            return data

        with (
            proxied(registry, to_server=kill) as proxy,
            pytest.raises(CapabilityError, match="breaks off"),
        ):
            pull(at(proxy, name), PLAIN)


def test_nobody_there_is_an_error() -> None:
    reference = parse_reference(f"127.0.0.1:{server.free_port()}/tool")
    with pytest.raises(CapabilityError, match=r"breaks off: Connection refused$"):
        pull(reference, PLAIN)


def test_a_registry_that_keeps_silent_is_not_waited_for(registry: Registry, name: str) -> None:
    with (
        proxied(registry, to_client=silent) as proxy,
        pytest.raises(CapabilityError, match=r"did not do it within 0\.3 s"),
    ):
        pull(at(proxy, name), IMPATIENT)


def test_a_registry_that_speaks_no_tls_needs_plain_http(registry: Registry, name: str) -> None:
    with pytest.raises(CapabilityError, match="needs --plain-http"):
        pull(at(registry, name), Access(timeout=5))


# Answers that are errors


@pytest.mark.parametrize("status", [b"500 Oh", b"503 No", b"429 Busy"])
def test_a_busy_registry_is_asked_a_few_times(registry: Registry, name: str, status: bytes) -> None:
    push(FILES, at(registry, name), PLAIN)
    always = replacing(b"HTTP/1.1 200 OK", b"HTTP/1.1 " + status)
    with proxied(registry, to_client=always) as proxy:
        with pytest.raises(CapabilityError, match=f"answers {status[:3].decode()}"):
            pull(at(proxy, name), PLAIN)
        assert proxy.seen.count(b"GET ") == transport.ATTEMPTS
    twice = replacing(b"HTTP/1.1 200 OK", b"HTTP/1.1 " + status, times=2)
    with proxied(registry, to_client=twice) as proxy:
        assert pull(at(proxy, name), PLAIN) == FILES


@pytest.mark.parametrize("status", [b"202 Accepted", b"201 Created"], ids=["POST", "PUT"])
def test_a_registry_that_is_busy_with_an_upload_is_asked_a_few_times(
    registry: Registry, name: str, status: bytes
) -> None:
    always = replacing(b"HTTP/1.1 " + status, b"HTTP/1.1 503 No")
    with (
        proxied(registry, to_client=always) as proxy,
        pytest.raises(CapabilityError, match="answers 503"),
    ):
        push(FILES, at(proxy, name), PLAIN)
    assert not is_there(registry, name)
    once = replacing(b"HTTP/1.1 " + status, b"HTTP/1.1 503 No", times=1)
    with proxied(registry, to_client=once) as proxy:
        push(FILES, at(proxy, name), PLAIN)
    assert pull(at(registry, name), PLAIN) == FILES


def test_a_registry_that_takes_nothing_says_so(tmp_path: Path, name: str) -> None:
    storage = {
        "filesystem": {"rootdirectory": str(tmp_path / "storage")},
        "maintenance": {"readonly": {"enabled": True}},
    }
    with (
        running(tmp_path / "readonly", storage=storage) as registry,
        pytest.raises(CapabilityError, match="answers 405"),
    ):
        push(FILES, at(registry, name), PLAIN)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"\x00\xff" * 50,
        b"HTTP/1.1 999\r\n\r\n",
        b"SSH-2.0-x",
    ],
    ids=["nothing", "html", "bytes", "status", "ssh"],
)
def test_what_is_no_registry_is_an_error(registry: Registry, name: str, junk: bytes) -> None:
    def answer(_: bytes) -> bytes:
        raise CutError(junk)

    with proxied(registry, to_client=answer) as proxy, pytest.raises(BpfsealError) as caught:
        pull(at(proxy, name), PLAIN)
    assert caught.value.exit_status in (3, 4)
    assert "\n" not in str(caught.value)


def test_a_compressed_answer_is_not_unpacked(registry: Registry, name: str) -> None:
    push(FILES, at(registry, name), PLAIN)
    bomb = replacing(b"Content-Type:", b"Content-Encoding: gzip\r\nContent-Type:")
    with (
        proxied(registry, to_client=bomb) as proxy,
        pytest.raises(CapabilityError, match="compressed, unasked"),
    ):
        pull(at(proxy, name), PLAIN)


def test_an_answer_without_an_end_is_not_read_to_the_end(registry: Registry, name: str) -> None:
    def flood(_: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(4 << 20)

    with (
        proxied(registry, to_client=flood) as proxy,
        pytest.raises(CapabilityError, match="answers with more than 1048576 bytes"),
    ):
        pull(at(proxy, name), PLAIN)


# Without the extra


def test_without_oras_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['oras'] = None\n"
        "from bpfseal.cli import main; sys.exit(main(['pull', 'localhost/a', '-o', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr == (
        "bpfseal: pull: registries need the Python package oras (pip install 'bpfseal[oci]')\n"
    )
