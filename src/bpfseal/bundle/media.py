"""The names and limits of the bundle format, in one place (see docs/bundle-format.md)."""

from __future__ import annotations

from typing import Final

from bpfseal.limits import MAX_METADATA

INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
BUNDLE_ARTIFACT_TYPE: Final = "application/vnd.bpfseal.bundle.v1"
LOADER_ARTIFACT_TYPE: Final = "application/vnd.bpfseal.loader.v1"
CONFIG_TYPE: Final = "application/vnd.bpfseal.loader.config.v1+json"
INSNS_TYPE: Final = "application/vnd.bpfseal.loader.insns.v1"
METADATA_TYPE: Final = "application/vnd.bpfseal.loader.metadata.v1"
BTF_TYPE: Final = "application/vnd.bpfseal.loader.btf.v1"
SIGNATURE_TYPE: Final = "application/vnd.bpfseal.signature.cms.v1"
CERTIFICATE_TYPE: Final = "application/vnd.bpfseal.certificate.x509.v1"

NAME_ANNOTATION: Final = "vnd.bpfseal.name"
"""On the index: the name of the object."""

SCHEME_ANNOTATION: Final = "vnd.bpfseal.scheme"
"""On a manifest's descriptor: the scheme of the variant."""

CERTIFICATE_ANNOTATION: Final = "vnd.bpfseal.certificate"
"""On a signature's descriptor: the digest of the signer's certificate."""

LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
BLOB_FOLDER: Final = "blobs/sha256"
LAYOUT_VERSION: Final = "1.0.0"

SIZE_LIMITS: Final = {
    MANIFEST_TYPE: 1 << 20,
    CONFIG_TYPE: 4 << 20,
    INSNS_TYPE: 8_000_000,  # BPF_COMPLEXITY_LIMIT_INSNS (include/linux/bpf.h), 8 bytes each
    METADATA_TYPE: MAX_METADATA,
    BTF_TYPE: 1 << 20,
    SIGNATURE_TYPE: 64 << 10,
    CERTIFICATE_TYPE: 64 << 10,
}
"""The largest blob of each media type, in bytes."""

MAX_INDEX_SIZE: Final = 1 << 20
"""The largest ``index.json`` and ``oci-layout``, in bytes."""

MAX_BUNDLE_SIZE: Final = 256 << 20
"""The largest bundle: the file, or all files of the directory form together, in bytes."""

MAX_FILES: Final = 1024
"""The most files in a bundle."""

MAX_VARIANTS: Final = 16
MAX_SIGNATURES: Final = 32
"""The most signatures, and the most certificates, of one variant."""

MAX_ENTRIES: Final = 4096
"""The most maps, and the most programs, of one variant."""

MAX_TEXT: Final = 1024
"""The longest name, section or annotation that is read, in characters."""
