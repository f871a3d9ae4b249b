"""Loaders made by hand, and Hypothesis strategies for any loader and bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from bpfseal.bundle.archive import write_tar
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.loader.model import Loader, MapEntry, ProgramEntry
from bpfseal.scheme import SCHEMES
from support.layouts import add_blob, blob_path, dumped

LOADER = Loader(
    scheme_name="kfunc",
    name="execsnoop_bpf",
    insns=bytes.fromhex("b700000000000000 9500000000000000"),
    metadata=b"metadata of the loader",
    btf=b"\x9f\xeb\x01\x00 a BTF",
    maps=(
        MapEntry(".rodata", "rodata", 2, 4, 12, 1, flags=0x80, has_initial_value=True),
        MapEntry("events", "events", 4, 4, 4, 0),
    ),
    programs=(ProgramEntry("enter", "tracepoint/syscalls/sys_enter_execve", 5, 0, "", 120),),
)
SIGNATURE = Signature(cms=b"0\x03CMS", certificate=b"0\x04cert")
BUNDLE = Bundle("execsnoop_bpf", (SignedLoader(LOADER, (SIGNATURE,)),))

_U32 = st.integers(0, 2**32 - 1)
_TEXT = st.text(max_size=40).filter(str.isprintable)
_MAPS = st.builds(
    MapEntry, _TEXT, _TEXT, _U32, _U32, _U32, _U32, flags=_U32, has_initial_value=st.booleans()
)
_PROGRAMS = st.builds(ProgramEntry, _TEXT, _TEXT, _U32, _U32, _TEXT, _U32)
_SIGNATURES = st.builds(Signature, cms=st.binary(max_size=64), certificate=st.binary(max_size=64))


def loaders(scheme_name: str) -> st.SearchStrategy[Loader]:
    """Return a strategy for any loader of a scheme."""
    has_btf = SCHEMES[scheme_name].has_loader_btf
    return st.builds(
        Loader,
        scheme_name=st.just(scheme_name),
        name=_TEXT,
        insns=st.integers(1, 16).flatmap(
            lambda slots: st.binary(min_size=8 * slots, max_size=8 * slots)
        ),
        metadata=st.binary(max_size=300),
        btf=st.binary(min_size=1, max_size=100) if has_btf else st.just(b""),
        maps=st.lists(_MAPS, max_size=4).map(tuple),
        programs=st.lists(_PROGRAMS, max_size=4).map(tuple),
        byteorder=st.sampled_from(["little", "big"]),
    )


def variants(scheme_name: str) -> st.SearchStrategy[SignedLoader]:
    """Return a strategy for any loader of a scheme with any signatures."""
    signatures = st.lists(_SIGNATURES, max_size=2).map(tuple)
    return st.builds(SignedLoader, loaders(scheme_name), signatures)


def _is_one_kind(bundle: Bundle) -> bool:
    """Whether nothing in it makes its file one of two kinds: such a one is not written."""
    return all(b"#include" not in variant.loader.metadata for variant in bundle.variants)


BUNDLES = st.builds(
    Bundle,
    name=_TEXT,
    variants=st.lists(st.sampled_from(list(SCHEMES)), max_size=2, unique=True).flatmap(
        lambda names: st.tuples(*map(variants, names))
    ),
).filter(_is_one_kind)

Change = Callable[[dict[str, Any]], object]


def repacked(
    bundle: Bundle = BUNDLE,
    *,
    index: Change | None = None,
    manifest: Change | None = None,
    config: Change | None = None,
) -> dict[str, bytes]:
    """Return the files of a bundle with documents changed and all digests made right again."""
    files = encode(bundle)
    index_document = json.loads(files["index.json"])
    for entry in index_document["manifests"]:
        manifest_document = json.loads(files.pop(blob_path(entry)))
        config_entry = manifest_document["config"]
        config_document = json.loads(files.pop(blob_path(config_entry)))
        if config:
            config(config_document)
        add_blob(files, config_entry, dumped(config_document))
        if manifest:
            manifest(manifest_document)
        add_blob(files, entry, dumped(manifest_document))
    if index:
        index(index_document)
    files["index.json"] = dumped(index_document)
    return files


def encode_files(
    bundle: Bundle,
) -> tuple[dict[str, bytes], list[dict[str, Any]], dict[str, Any]]:
    """Return the blobs of a bundle without its manifests, the manifests, and the index."""
    files = encode(bundle)
    index = json.loads(files["index.json"])
    manifests = [json.loads(files.pop(blob_path(entry))) for entry in index["manifests"]]
    return files, manifests, index


def packed(files: dict[str, bytes]) -> bytes:
    return write_tar(files)


def listing(folder: Path) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(path.name for path in folder.iterdir())
