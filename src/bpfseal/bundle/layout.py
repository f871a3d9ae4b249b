"""A bundle as the files of an OCI image layout, and back.

The layout is a mapping of relative paths to contents; `bpfseal.bundle.store` puts it into one file
or a directory, `bpfseal.bundle.registry` into an OCI registry. The reader trusts nothing: each
blob's digest and size, each media type, each field, and that no file is left over that nothing
refers to.

Example:
    >>> from bpfseal.bundle.model import Bundle
    >>> decode(encode(Bundle("empty", ())), "empty.bpfseal")
    Bundle(name='empty', variants=())
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bundle import media
from bpfseal.bundle.config import decode_config, encode_config
from bpfseal.bundle.fields import Fields, Json, canonical, parse
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.loader.model import Loader

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
"""A digest as it is written in descriptors and references."""

LAYOUT_DOCUMENT = canonical({"imageLayoutVersion": media.LAYOUT_VERSION})
"""What ``oci-layout`` holds."""


class Source(Protocol):
    """Where a reader gets a layout from. The reader checks what it is given."""

    def document(self, path: str) -> bytes:
        """Return ``index.json`` or ``oci-layout``.

        Raises:
            InputError: it is missing.
        """

    def blob(self, media_type: str, digest: str, size: int) -> bytes:
        """Return the content that a descriptor names.

        Args:
            media_type: one of `bpfseal.bundle.media.SIZE_LIMITS`.
            digest: ``sha256:`` and 64 hexadecimal digits.
            size: how many bytes it should have, within the limit of the media type.

        Raises:
            InputError: it is missing.
        """


def encode(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle, sorted by path.

    Raises:
        InputError: a part of it is beyond the limits of the format.
    """
    writer = _Writer()
    manifests: list[Json] = [writer.variant(variant) for variant in bundle.variants]
    index = canonical(
        {
            "schemaVersion": 2,
            "mediaType": media.INDEX_TYPE,
            "artifactType": media.BUNDLE_ARTIFACT_TYPE,
            "manifests": manifests,
            "annotations": {media.NAME_ANNOTATION: bundle.name},
        }
    )
    writer.files[media.INDEX_FILE] = index
    writer.files[media.LAYOUT_FILE] = LAYOUT_DOCUMENT
    files = dict(sorted(writer.files.items()))
    decode(files, bundle.name)  # what no reader would take is not written
    return files


def decode(files: Mapping[str, bytes], where: str) -> Bundle:
    """Return the bundle that the files hold.

    Args:
        files: contents by path relative to the layout.
        where: the name of the bundle, for error messages.

    Raises:
        InputError: anything in it that is missing, wrong, unknown or left over.
    """
    source = Files(files)
    bundle = read(source, where)
    if left_over := sorted(set(files) - source.reached):
        raise InputError("nothing refers to this file", where=f"{where}: {left_over[0]}")
    return bundle


def read(source: Source, where: str) -> Bundle:
    """Return the bundle that a source holds.

    Args:
        source: where the documents and blobs come from; each is asked for when a document that is
            already checked refers to it.
        where: the name of the bundle, for error messages.

    Raises:
        InputError: anything in it that is missing, wrong or unknown.
    """
    return _Reader(source, where).bundle()


def digest_of(data: bytes) -> str:
    """Return the digest of a content as descriptors write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_path(digest: str) -> str:
    """Return the path of the blob with a checked digest."""
    return f"{media.BLOB_FOLDER}/{digest.removeprefix('sha256:')}"


def is_layout_path(path: str) -> bool:
    """Whether a file of this relative path belongs into a bundle."""
    if path in (media.LAYOUT_FILE, media.INDEX_FILE):
        return True
    folder, _, name = path.rpartition("/")
    return folder == media.BLOB_FOLDER and re.fullmatch("[0-9a-f]{64}", name) is not None


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a layout as a `Source`.

    Attributes:
        files: contents by path relative to the layout.
        reached: the paths that were asked for.
    """

    files: Mapping[str, bytes]
    reached: set[str] = field(default_factory=set)

    def document(self, path: str) -> bytes:
        """Return a document; see `Source.document`."""
        data = self.files.get(path)
        if data is None:
            raise InputError("missing", hint="is this a bundle?")
        self.reached.add(path)
        return data

    def blob(self, media_type: str, digest: str, size: int) -> bytes:  # noqa: ARG002 - Source
        """Return a blob; see `Source.blob`."""
        path = blob_path(digest)
        data = self.files.get(path)
        if data is None:
            raise InputError(f"blob {digest} is missing")
        self.reached.add(path)
        return data


@dataclass(slots=True)
class _Writer:
    """Collects blobs under their digests."""

    files: dict[str, bytes] = field(default_factory=dict)

    def blob(self, media_type: str, data: bytes, **annotations: str) -> dict[str, Json]:
        """Add a blob and return its descriptor."""
        digest = digest_of(data)
        self.files[blob_path(digest)] = data
        descriptor: dict[str, Json] = {
            "mediaType": media_type,
            "digest": digest,
            "size": len(data),
        }
        if annotations:
            descriptor["annotations"] = dict(annotations)
        return descriptor

    def variant(self, variant: SignedLoader) -> dict[str, Json]:
        """Add a variant's blobs and return the descriptor of its manifest."""
        loader = variant.loader
        layers: list[Json] = [
            self.blob(media.INSNS_TYPE, loader.insns),
            self.blob(media.METADATA_TYPE, loader.metadata),
        ]
        if loader.btf:
            layers.append(self.blob(media.BTF_TYPE, loader.btf))
        certificates: dict[bytes, dict[str, Json]] = {}
        for signature in variant.signatures:
            if signature.certificate and signature.certificate not in certificates:
                certificates[signature.certificate] = self.blob(
                    media.CERTIFICATE_TYPE, signature.certificate
                )
        for signature in variant.signatures:
            annotations = {}
            if signature.certificate:
                annotations[media.CERTIFICATE_ANNOTATION] = digest_of(signature.certificate)
            layers.append(self.blob(media.SIGNATURE_TYPE, signature.cms, **annotations))
        layers.extend(certificates.values())
        manifest = canonical(
            {
                "schemaVersion": 2,
                "mediaType": media.MANIFEST_TYPE,
                "artifactType": media.LOADER_ARTIFACT_TYPE,
                "config": self.blob(media.CONFIG_TYPE, encode_config(loader, variant.tool)),
                "layers": layers,
            }
        )
        annotations = {media.SCHEME_ANNOTATION: loader.scheme_name}
        descriptor = self.blob(media.MANIFEST_TYPE, manifest, **annotations)
        descriptor["artifactType"] = media.LOADER_ARTIFACT_TYPE
        return descriptor


@dataclass(frozen=True, slots=True)
class _Blob:
    """A descriptor with the checked content that it names."""

    media_type: str
    digest: str
    data: bytes
    annotations: Mapping[str, str]
    where: str


class _Reader:
    """Follows the references from ``index.json``."""

    def __init__(self, source: Source, where: str) -> None:
        self._source = source
        self._where = where
        self._checked: dict[str, bytes] = {}

    def bundle(self) -> Bundle:
        layout = self._document(media.LAYOUT_FILE)
        layout.text("imageLayoutVersion", choices=(media.LAYOUT_VERSION,))
        layout.finish()

        index = self._document(media.INDEX_FILE)
        _check_version(index, media.INDEX_TYPE, media.BUNDLE_ARTIFACT_TYPE)
        entries = index.objects("manifests", limit=media.MAX_VARIANTS)
        name = index.texts("annotations").get(media.NAME_ANNOTATION)
        if name is None:
            raise InputError(f"no annotation {media.NAME_ANNOTATION}", where=index.where)
        index.finish()

        variants: list[SignedLoader] = []
        for entry in entries:
            variant = self._variant(entry)
            scheme_name = variant.loader.scheme_name
            if any(scheme_name == other.loader.scheme_name for other in variants):
                raise InputError(f"two variants for scheme {scheme_name}", where=entry.where)
            variants.append(variant)
        return Bundle(name, tuple(variants))

    def _document(self, path: str) -> Fields:
        where = f"{self._where}: {path}"
        with _naming(where):
            data = self._source.document(path)
        if len(data) > media.MAX_INDEX_SIZE:
            raise InputError(f"larger than {media.MAX_INDEX_SIZE} bytes", where=where)
        return parse(data, where)

    def _blob(self, descriptor: Fields, *media_types: str) -> _Blob:
        where = descriptor.where
        media_type = descriptor.text("mediaType")
        if media_type not in media_types:
            raise UnsupportedError(
                f"unknown media type {media_type!r}",
                where=where,
                hint="a newer version of bpfseal?",
            )
        digest = descriptor.text("digest")
        if not DIGEST.fullmatch(digest):
            raise InputError("digest is not sha256: and 64 hexadecimal digits", where=where)
        size = descriptor.number("size", high=media.SIZE_LIMITS[media_type])
        annotations = descriptor.texts("annotations")
        if "artifactType" in descriptor.names():
            descriptor.text("artifactType", choices=(media.LOADER_ARTIFACT_TYPE,))
        descriptor.finish()

        data = self._checked.get(digest)
        is_new = data is None
        if data is None:
            with _naming(where):
                data = self._source.blob(media_type, digest, size)
        if len(data) != size:
            raise InputError(f"blob has {len(data)} bytes, not {size}", where=where)
        if is_new and digest_of(data) != digest:
            raise InputError(f"content does not match {digest}", where=where)
        self._checked[digest] = data
        return _Blob(media_type, digest, data, annotations, where)

    def _variant(self, descriptor: Fields) -> SignedLoader:
        blob = self._blob(descriptor, media.MANIFEST_TYPE)
        manifest = parse(blob.data, blob.where)
        _check_version(manifest, media.MANIFEST_TYPE, media.LOADER_ARTIFACT_TYPE)
        config_blob = self._blob(manifest.object("config"), media.CONFIG_TYPE)
        config = decode_config(config_blob.data, config_blob.where)
        layers = _Layers(
            [
                self._blob(
                    layer,
                    media.INSNS_TYPE,
                    media.METADATA_TYPE,
                    media.BTF_TYPE,
                    media.SIGNATURE_TYPE,
                    media.CERTIFICATE_TYPE,
                )
                for layer in manifest.objects("layers", limit=3 + 2 * media.MAX_SIGNATURES)
            ],
            blob.where,
        )
        manifest.finish()
        if blob.annotations.get(media.SCHEME_ANNOTATION) != config.scheme_name:
            raise InputError(
                f"the index and the config ({config.scheme_name}) differ in the scheme",
                where=blob.where,
            )

        insns = layers.one(media.INSNS_TYPE)
        if not insns or len(insns) % INSN_SIZE:
            raise InputError("the instructions are not whole slots", where=blob.where)
        metadata = layers.one(media.METADATA_TYPE)
        btf = layers.one(media.BTF_TYPE) if layers.of(media.BTF_TYPE) else b""
        loader = Loader(
            scheme_name=config.scheme_name,
            name=config.name,
            insns=insns,
            metadata=metadata,
            btf=btf,
            maps=config.maps,
            programs=config.programs,
            byteorder=config.byteorder,
        )
        if loader.scheme.has_loader_btf != bool(btf):
            has = "needs" if loader.scheme.has_loader_btf else "has no"
            raise InputError(f"scheme {config.scheme_name} {has} loader BTF", where=blob.where)
        return SignedLoader(loader, layers.signatures(), config.tool)


@dataclass(frozen=True, slots=True)
class _Layers:
    """The layers of one manifest."""

    blobs: list[_Blob]
    where: str

    def of(self, media_type: str) -> list[_Blob]:
        """All layers of a media type."""
        return [blob for blob in self.blobs if blob.media_type == media_type]

    def one(self, media_type: str) -> bytes:
        """The only layer of a media type."""
        found = self.of(media_type)
        if len(found) != 1:
            raise InputError(f"{len(found)} layers of type {media_type}, not 1", where=self.where)
        return found[0].data

    def signatures(self) -> tuple[Signature, ...]:
        """The signatures, each with the certificate that its annotation names."""
        certificates = {blob.digest: blob.data for blob in self.of(media.CERTIFICATE_TYPE)}
        used = set()
        signatures: list[Signature] = []
        for blob in self.of(media.SIGNATURE_TYPE):
            digest = blob.annotations.get(media.CERTIFICATE_ANNOTATION, "")
            if digest and digest not in certificates:
                raise InputError("its certificate is missing", where=blob.where)
            used.add(digest)
            signatures.append(Signature(blob.data, certificates.get(digest, b"")))
        if certificates.keys() - used:
            raise InputError("a certificate that no signature names", where=self.where)
        if len(signatures) > media.MAX_SIGNATURES:
            raise InputError(f"more than {media.MAX_SIGNATURES} signatures", where=self.where)
        return tuple(signatures)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    """Name the place in the layout that a source's error is about."""
    try:
        yield
    except InputError as error:
        error.where = error.where or where
        raise


def _check_version(document: Fields, media_type: str, artifact_type: str) -> None:
    document.number("schemaVersion", low=2, high=2)
    document.text("mediaType", choices=(media_type,))
    document.text("artifactType", choices=(artifact_type,))
