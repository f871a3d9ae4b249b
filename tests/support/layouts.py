"""The files of bundles with blobs exchanged and digests made right."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def dumped(document: object) -> bytes:
    return json.dumps(document).encode()


def blob_path(descriptor: dict[str, Any]) -> str:
    digest: str = descriptor["digest"]
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def add_blob(files: dict[str, bytes], descriptor: dict[str, Any], data: bytes) -> None:
    """Add a blob and make a descriptor name it."""
    descriptor["digest"] = f"sha256:{hashlib.sha256(data).hexdigest()}"
    descriptor["size"] = len(data)
    files[blob_path(descriptor)] = data
