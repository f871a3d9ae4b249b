"""A bundle as the files of an OCI image layout, and back.

The layout is a mapping of relative paths to contents; `bpfseal.bundle.store` puts it into one file
or a directory. The reader trusts nothing: each blob's digest and size, each media type, each field,
and that no file is left over that nothing refers to.

Example:
    >>> from bpfseal.bundle.model import Bundle
    >>> decode(encode(Bundle("empty", ())), "empty.bpfseal")
    Bundle(name='empty', variants=())
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.bundle import media
from bpfseal.bundle.config import decode_config, encode_config
from bpfseal.bundle.fields import Fields, Json, canonical, parse
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.errors import InputError, UnsupportedError
from bpfseal.loader.model import Loader

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


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
    writer.files[media.LAYOUT_FILE] = canonical({"imageLayoutVersion": media.LAYOUT_VERSION})
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
    return _Reader(files, where).bundle()


def is_layout_path(path: str) -> bool:
    """Whether a file of this relative path belongs into a bundle."""
    if path in (media.LAYOUT_FILE, media.INDEX_FILE):
        return True
    folder, _, name = path.rpartition("/")
    return folder == media.BLOB_FOLDER and re.fullmatch("[0-9a-f]{64}", name) is not None


@dataclass(slots=True)
class _Writer:
    """Collects blobs under their digests."""

    files: dict[str, bytes] = field(default_factory=dict)

    def blob(self, media_type: str, data: bytes, **annotations: str) -> dict[str, Json]:
        """Add a blob and return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"{media.BLOB_FOLDER}/{digest}"] = data
        descriptor: dict[str, Json] = {
            "mediaType": media_type,
            "digest": f"sha256:{digest}",
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
                digest = hashlib.sha256(signature.certificate).hexdigest()
                annotations[media.CERTIFICATE_ANNOTATION] = f"sha256:{digest}"
            layers.append(self.blob(media.SIGNATURE_TYPE, signature.cms, **annotations))
        layers.extend(certificates.values())
        manifest = canonical(
            {
                "schemaVersion": 2,
                "mediaType": media.MANIFEST_TYPE,
                "artifactType": media.LOADER_ARTIFACT_TYPE,
                "config": self.blob(media.CONFIG_TYPE, encode_config(loader)),
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
    """Follows the references from ``index.json`` and remembers which files were reached."""

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        self._files = files
        self._where = where
        self._reached: set[str] = set()

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

        if left_over := sorted(set(self._files) - self._reached):
            raise InputError("nothing refers to this file", where=f"{self._where}: {left_over[0]}")
        return Bundle(name, tuple(variants))

    def _document(self, path: str) -> Fields:
        data = self._files.get(path)
        where = f"{self._where}: {path}"
        if data is None:
            raise InputError("missing", where=where, hint="is this a bundle?")
        if len(data) > media.MAX_INDEX_SIZE:
            raise InputError(f"larger than {media.MAX_INDEX_SIZE} bytes", where=where)
        self._reached.add(path)
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
        matched = _DIGEST.fullmatch(digest)
        if not matched:
            raise InputError("digest is not sha256: and 64 hexadecimal digits", where=where)
        size = descriptor.number("size", high=media.SIZE_LIMITS[media_type])
        annotations = descriptor.texts("annotations")
        if "artifactType" in descriptor.names():
            descriptor.text("artifactType", choices=(media.LOADER_ARTIFACT_TYPE,))
        descriptor.finish()

        path = f"{media.BLOB_FOLDER}/{matched[1]}"
        data = self._files.get(path)
        if data is None:
            raise InputError(f"blob {digest} is missing", where=where)
        if len(data) != size:
            raise InputError(f"blob has {len(data)} bytes, not {size}", where=where)
        if hashlib.sha256(data).hexdigest() != matched[1]:
            raise InputError(f"content does not match {digest}", where=where)
        self._reached.add(path)
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
        return SignedLoader(loader, layers.signatures())


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
        signatures = []
        for blob in self.of(media.SIGNATURE_TYPE):
            digest = blob.annotations.get(media.CERTIFICATE_ANNOTATION, "")
            if digest and digest not in certificates:
                raise InputError("its certificate is missing", where=blob.where)
            used.add(digest)
            signatures.append(Signature(blob.data, certificates.get(digest, b"")))
        if certificates.keys() - used:
            raise InputError("a certificate that no signature names", where=self.where)
        return tuple(signatures)


def _check_version(document: Fields, media_type: str, artifact_type: str) -> None:
    document.number("schemaVersion", low=2, high=2)
    document.text("mediaType", choices=(media_type,))
    document.text("artifactType", choices=(artifact_type,))
