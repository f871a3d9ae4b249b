"""Bundles in OCI registries.

A bundle goes to a registry as it is: its blobs, a manifest for each variant, and the index under
the tag, so that any tool which copies OCI artifacts copies it. The index comes last: until it is
there nothing refers to what has been uploaded. Coming back, the strict reader of
`bpfseal.bundle.layout` asks for one part after the other, with sizes and digests that it has
checked, and nothing is written before it has read the whole bundle. The files are byte for byte
those that were pushed.

Needs the extra ``bpfseal[oci]``.

Example::

    reference = parse_reference("registry.example.org/tools/execsnoop:1.0")
    push(read_layout(Path("execsnoop.bpfseal")), reference)
    write_layout(pull(reference), "copy.bpfseal")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bpfseal.bundle import media
from bpfseal.bundle.layout import LAYOUT_DOCUMENT, Files, blob_path, decode, digest_of, read
from bpfseal.bundle.reference import Access, Reference
from bpfseal.errors import CapabilityError, InputError, UsageError

if TYPE_CHECKING:
    from bpfseal.bundle.transport import Connection

DIGEST_HEADER = "Docker-Content-Digest"


def push(files: Mapping[str, bytes], reference: Reference, access: Access | None = None) -> str:
    """Put a bundle into a registry.

    Args:
        files: its files by path (`bpfseal.bundle.store.read_layout`).
        reference: where to, with a tag.
        access: how to reach the registry; over https, as Docker's configuration says, if not given.

    Returns:
        The digest of the index: with it the bundle can be pulled whatever becomes of the tag.

    Raises:
        InputError: the files are not a bundle.
        UsageError: the reference has a digest.
        CapabilityError: the registry cannot be reached or does not take it, or the extra is not
            installed.
    """
    if reference.digest:
        raise UsageError("a bundle is pushed to a tag", where=str(reference), hint="HOST/NAME:TAG")
    decode(files, str(reference))
    references = _references(files)
    index = files[media.INDEX_FILE]
    digest = digest_of(index)
    with _connected(reference, access) as connection:
        for blob_digest in references.blobs:
            if not connection.exists(f"blobs/{blob_digest}"):
                connection.upload(blob_digest, files[blob_path(blob_digest)])
        for manifest_digest in references.manifests:
            manifest = files[blob_path(manifest_digest)]
            connection.put(f"manifests/{manifest_digest}", manifest, media.MANIFEST_TYPE)
        # By its digest first, which the registry compares: under a tag it takes what it gets.
        for name in (digest, reference.tag):
            answer = connection.put(f"manifests/{name}", index, media.INDEX_TYPE)
        if answer.headers.get(DIGEST_HEADER, digest) != digest:
            raise CapabilityError(
                "the registry got other bytes than were sent",
                where=str(reference),
                hint="push it again",
            )
    return digest


def pull(reference: Reference, access: Access | None = None) -> dict[str, bytes]:
    """Take a bundle out of a registry.

    Args:
        reference: where it lies; with a digest nothing but that index is taken.
        access: how to reach the registry; over https, as Docker's configuration says, if not given.

    Returns:
        Its files by path, read and checked, for `bpfseal.bundle.store.write_layout`.

    Raises:
        InputError: there is no bundle, or anything in it is missing, wrong, unknown or too large.
        CapabilityError: the registry cannot be reached or does not give it out, or the extra is not
            installed.
    """
    with _connected(reference, access) as connection:
        source = _Remote(connection, reference)
        read(source, str(reference))
    return dict(sorted(source.files.items()))


@contextlib.contextmanager
def _connected(reference: Reference, access: Access | None) -> Iterator[Connection]:
    try:
        from bpfseal.bundle.transport import Connection
    except ModuleNotFoundError as error:
        raise CapabilityError(
            f"registries need the Python package {str(error.name).partition('.')[0]}",
            hint="pip install 'bpfseal[oci]'",
        ) from None
    connection = Connection(reference, access or Access())
    try:
        yield connection
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class _References(Files):
    """Remembers what a bundle refers to: the digests of blobs and manifests, each once."""

    blobs: dict[str, None] = field(default_factory=dict)
    manifests: dict[str, None] = field(default_factory=dict)

    def blob(self, media_type: str, digest: str, size: int) -> bytes:
        found = self.manifests if media_type == media.MANIFEST_TYPE else self.blobs
        found[digest] = None
        return Files.blob(self, media_type, digest, size)


def _references(files: Mapping[str, bytes]) -> _References:
    references = _References(files)
    read(references, "")
    return references


@dataclass(frozen=True, slots=True)
class _Remote:
    """A bundle in a registry as a `bpfseal.bundle.layout.Source`.

    Attributes:
        files: what has been fetched, by path.
    """

    connection: Connection
    reference: Reference
    files: dict[str, bytes] = field(default_factory=dict)

    def document(self, path: str) -> bytes:
        if path == media.LAYOUT_FILE:  # a file of the layout alone; registries do not have it
            self.files[path] = LAYOUT_DOCUMENT
            return LAYOUT_DOCUMENT
        answer = self.connection.get(
            f"manifests/{self.reference.digest or self.reference.tag}",
            limit=media.MAX_INDEX_SIZE,
            accept=media.INDEX_TYPE,
        )
        digest = digest_of(answer.content)
        expected = self.reference.digest or answer.headers.get(DIGEST_HEADER, digest)
        if digest != expected:
            raise InputError(f"the index does not match {expected[:80]}")
        return self._keep(path, answer.content)

    def blob(self, media_type: str, digest: str, size: int) -> bytes:
        path = blob_path(digest)
        if path in self.files:
            return self.files[path]
        if len(self.files) == media.MAX_FILES:
            raise InputError(f"more than {media.MAX_FILES} files")
        kind = "manifests" if media_type == media.MANIFEST_TYPE else "blobs"
        accept = media_type if kind == "manifests" else "*/*"
        answer = self.connection.get(f"{kind}/{digest}", limit=size, accept=accept)
        return self._keep(path, answer.content)

    def _keep(self, path: str, data: bytes) -> bytes:
        if sum(map(len, self.files.values())) + len(data) > media.MAX_BUNDLE_SIZE:
            raise InputError(f"larger than {media.MAX_BUNDLE_SIZE} bytes")
        self.files[path] = data
        return data
