"""Bundles in each form, headers, loaders read back, statements, references."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from bpfseal.bundle import store
from bpfseal.bundle.downgrade import refuse_traps
from bpfseal.bundle.layout import decode, encode
from bpfseal.bundle.lskel_import import import_header, verify_import
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.offline import attach, prepare
from bpfseal.bundle.reading import bundle_of
from bpfseal.bundle.reference import parse_reference
from bpfseal.bundle.skeleton_c import c_skeleton
from bpfseal.bundle.skeleton_python import python_skeleton
from bpfseal.bundle.variants import loadable_variants
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import BpfsealError
from bpfseal.loader.reading import read_loader
from bpfseal.scheme import SCHEMES
from bpfseal.skeleton.description import Description
from support.files import ROOT
from support.layouts import add_blob, blob_path, dumped
from support.lskel_writer import header_of

from ..mutators import BYTES, DER, INSNS, JSON, TAR, TEXT, by_part, join, split
from .base import Target, signed, signer

_EXAMPLES = ("exectrace", "maplab")
_SCHEMES = ("kfunc", "inline", "loadtime")


@cache
def _bundle() -> Bundle:
    return Bundle("exectrace_bpf", tuple(signed("exectrace", name) for name in _SCHEMES))


def _trusted() -> list[Any]:
    return [signer().certificate]


def use(bundle: Bundle) -> None:
    """Do with a bundle that was read what is done with bundles."""
    for variant in bundle.variants:
        use_loader(variant)
    for work in (loadable_variants, c_skeleton, python_skeleton):
        with contextlib.suppress(BpfsealError):
            work(bundle)


def use_loader(variant: SignedLoader) -> None:
    """Verify a loader and ask for what its metadata says."""
    with contextlib.suppress(BpfsealError):
        verify_loader(variant, _trusted())
    with contextlib.suppress(BpfsealError):
        prepare(variant)
    with contextlib.suppress(BpfsealError):
        refuse_traps(variant, _trusted())
    description = Description(variant.loader)
    for number in range(len(variant.loader.maps)):
        for ask in (description.map_types, description.variables, description.initial_value):
            with contextlib.suppress(BpfsealError):
                ask(number)


def _files() -> Sequence[bytes]:
    """Return a file of each kind that `bundle_of` tells apart."""
    return (*_archives(), *_headers(), (ROOT / "examples" / "xdpcount.bpf.o").read_bytes())


def _file(data: bytes) -> object:
    bundle = bundle_of(data, "fuzzed")
    use(bundle)
    return bundle


def _archives() -> Sequence[bytes]:
    small = Bundle("small", (signed("xdpcount", "unsigned"),))
    return (store.pack(_bundle()), store.pack(small))


def _archive(data: bytes) -> object:
    bundle = store.unpack(data, "fuzzed.bpfseal")
    use(bundle)
    return bundle


def _documents() -> Sequence[bytes]:
    files = encode(_bundle())
    return (join(files["index.json"], files["oci-layout"]),)


def _directory(data: bytes) -> object:
    """Read a bundle as a directory, with the documents given."""
    index, layout = split(data, 2)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "blobs" / "sha256").mkdir(parents=True)
        for path, content in (
            encode(_bundle()) | {"index.json": index, "oci-layout": layout}
        ).items():
            (root / path).write_bytes(content)
        return store.read_bundle(root)


@cache
def _parts(kind: str) -> tuple[bytes, ...]:
    """Return the documents or blobs of one kind in the bundle of the seeds."""
    files = encode(_bundle())
    index = json.loads(files["index.json"])
    if kind == "index":
        return (files["index.json"],)
    manifests = [json.loads(files[blob_path(entry)]) for entry in index["manifests"]]
    if kind == "manifest":
        return tuple(map(dumped, manifests))
    return tuple(files[blob_path(manifest["config"])] for manifest in manifests)


def _documented(kind: str) -> Callable[[bytes], object]:
    """Return the reading of a bundle with one document changed and all digests made right."""

    def call(data: bytes) -> object:
        files = dict(encode(_bundle()))
        index = json.loads(files["index.json"])
        entry = index["manifests"][0]
        manifest = json.loads(files[blob_path(entry)])
        if kind == "index":
            files["index.json"] = data
        else:
            del files[blob_path(entry)]
            if kind == "config":
                del files[blob_path(manifest["config"])]
                add_blob(files, manifest["config"], data)
                data = dumped(manifest)
            add_blob(files, entry, data)
            files["index.json"] = dumped(index)
        bundle = decode(files, "fuzzed")
        use(bundle)
        return bundle

    return call


def _loaders() -> Sequence[bytes]:
    variants = [signed(example, scheme) for example in _EXAMPLES for scheme in _SCHEMES]
    return tuple(
        join(
            bytes([_SCHEMES.index(each.loader.scheme_name), _EXAMPLES.index(example)]),
            each.loader.insns,
            each.loader.metadata,
            each.loader.btf,
            each.signatures[0].cms,
            each.signatures[0].certificate,
        )
        for example, each in zip(
            [example for example in _EXAMPLES for _ in _SCHEMES], variants, strict=True
        )
    )


def _loader(data: bytes) -> object:
    """Verify a loader that came out of a bundle, whatever its parts are."""
    which, insns, metadata, btf, cms, certificate = split(data, 6)
    which = which.ljust(2, b"\0")
    variant = signed(_EXAMPLES[which[1] % 2], _SCHEMES[which[0] % 3])
    loader = replace(variant.loader, insns=insns, metadata=metadata, btf=btf)
    changed = SignedLoader(loader, (Signature(cms, certificate),))
    use(Bundle("fuzzed", (changed,)))
    return verify_loader(changed, _trusted())


def _headers() -> Sequence[bytes]:
    variants = [signed("xdpcount", scheme) for scheme in ("kfunc", "unsigned")]
    variants.append(signed("exectrace", "loadtime"))
    return tuple(header_of(each).encode() for each in variants)


def _header(data: bytes) -> object:
    bundle = import_header(data, "fuzzed.lskel.h")
    use(bundle)
    return verify_import(bundle, _trusted())


def _read_loaders() -> Sequence[bytes]:
    loaders = [signed(name, scheme).loader for name in _EXAMPLES for scheme in SCHEMES]
    return tuple(join(each.insns, each.metadata) for each in loaders)


def _read_loader(data: bytes) -> object:
    insns, metadata = split(data, 2)
    return read_loader(insns, metadata, "little")


def _statements() -> Sequence[bytes]:
    rsa, ec = signed("exectrace", "kfunc"), signed("exectrace", "kfunc", "p256")
    messages = [each.signatures[0].cms for each in (rsa, ec)]
    values = [messages[0][-256:], messages[1][-72:]]
    return (*messages, *values)


def _statement(data: bytes) -> object:
    """Attach a signature that came back from elsewhere."""
    variant = SignedLoader(signed("exectrace", "kfunc").loader)
    with contextlib.suppress(BpfsealError):
        attach(variant, data, signer("p256").certificate)
    return attach(variant, data, signer().certificate)


def _references() -> Sequence[bytes]:
    digest = b"0" * 64
    return (
        b"registry.example.org/tools/execsnoop:1.0",
        b"localhost:5000/a/b_c/d-e@sha256:" + digest,
        b"[::1]:5000/x",
    )


def _reference(data: bytes) -> object:
    reference = parse_reference(data.decode("utf-8", "surrogateescape"))
    return str(reference), reference.is_loopback


TARGETS = (
    Target("bundle-archive", _archives, _archive, TAR),
    Target("bundle-file", _files, _file, (*TAR, *TEXT, *BYTES)),
    Target("bundle-directory", _documents, _directory, by_part(JSON, JSON)),
    *(
        Target(f"bundle-{kind}", partial(_parts, kind), _documented(kind), JSON)
        for kind in ("index", "manifest", "config")
    ),
    Target("verify-loader", _loaders, _loader, by_part(BYTES, INSNS, BYTES, BYTES, DER, DER)),
    Target("lskel", _headers, _header, TEXT),
    Target("read-loader", _read_loaders, _read_loader, by_part(INSNS, BYTES)),
    Target("attach-signature", _statements, _statement, DER),
    Target("reference", _references, _reference, TEXT),
)
