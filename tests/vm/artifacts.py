"""What all guests get: made once for a run, the same bytes for every kernel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.store import pack
from bpfseal.kernel.scenario import Collection, Scenario, read_collection
from bpfseal.kernel.scenario_keys import key_pair, with_signatures
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer
from support.files import EXAMPLE, LIBBPF_TOOLS, ROOT

from . import c_programs

BUILTIN_KEY = "p256"
"""The key of the scenarios that every guest's kernel has in its image."""

SKIPPED_BOOTS = {
    "functions": "wants a kernel without the kfunc that has BTF for it",
    "post_integrity": "wants an LSM hook of the kfunc's series",
    "bpf_keyring_unsealed": "wants a kernel with the keyring .bpf, and a boot parameter",
}
"""What scenarios are booted with that no guest can be, and why."""

TIMED = EXAMPLE
"""The object that load times are measured with."""


@dataclass(frozen=True)
class Artifacts:
    """What is in the guests.

    Attributes:
        files: the files below ``/jobs``.
        objects: the names of the objects.
        collections: the scenarios that run in the guests, with their signatures, by file.
        skipped: the names of the others, each with the reason.
        missing: why there is no C program in the guests, or ``""``.
    """

    files: Mapping[str, bytes]
    objects: tuple[str, ...]
    collections: Mapping[str, Collection]
    skipped: Mapping[str, str]
    missing: str


def make_artifacts(work: Path) -> Artifacts:
    """Build, sign and compile everything; `work` is a folder for what compilers leave."""
    key = generate_key("rsa2048", "vm")
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    paths = [EXAMPLE, *sorted(LIBBPF_TOOLS.glob("*.bpf.o"))]
    files = {"certificate": key.certificate_der}
    files["other certificate"] = generate_key("rsa2048", "other").certificate_der
    for path in paths:
        files[f"objects/{path.name}.bpfseal"] = pack(bundle_of(path, signer, SIGNED_SCHEMES))
        released = [scheme for scheme in SIGNED_SCHEMES if scheme != "kfunc"]
        files[f"objects/{path.name}.traced"] = pack(bundle_of(path, signer, released, traces=True))
    for path in sorted((ROOT / "examples").glob("*.bpf.o")):
        name = path.name.removesuffix(".bpf.o")
        files[f"exercises/{name}.bpfseal"] = pack(bundle_of(path, signer, SCHEMES))
    files["cycled.bpfseal"] = files["exercises/xdpcount.bpfseal"]
    files["load times/timed.bpfseal"] = files["exercises/exectrace.bpfseal"]
    missing = c_programs.missing()
    if not missing:
        bundle = bundle_of(TIMED, signer, SIGNED_SCHEMES)
        files |= c_programs.skeleton_programs(bundle, work)
        timed = c_programs.timed_programs(TIMED, bundle, work)
        files |= {f"load times/programs/{name}": data for name, data in timed.items()}
    collections, skipped = scenarios()
    for name, collection in collections.items():
        files[f"scenarios/{name}"] = json.dumps(document_of(collection)).encode()
    names = tuple(path.name for path in paths)
    return Artifacts(files, names, collections, skipped, missing)


def bundle_of(
    path: Path, signer: Signer, schemes: Iterable[str], *, traces: bool = False
) -> Bundle:
    """Return the object's variants, signed where the scheme is one of signatures."""
    obj = read_object(path.read_bytes(), path.name)
    loaders = [SignedLoader(generate(obj, scheme, traces=traces)) for scheme in schemes]
    variants = (
        sign_loader(given, signer) if given.loader.scheme.signed_parts else given
        for given in loaders
    )
    return Bundle(obj.name, tuple(variants))


def builtin_key() -> bytes:
    """Return the certificate that the kernels find in their image."""
    return key_pair(BUILTIN_KEY).certificate_der


def scenarios() -> tuple[dict[str, Collection], dict[str, str]]:
    """Return the scenarios that guests can run, and why the others cannot."""
    collections: dict[str, Collection] = {}
    skipped: dict[str, str] = {}
    for path in sorted((ROOT / "conformance").glob("*.json")):
        if path.name == "schema.json":
            continue
        collection = with_signatures(read_collection(path))
        reasons = {scenario.name: _reason(scenario) for scenario in collection.scenarios}
        skipped |= {f"{path.stem}/{name}": why for name, why in reasons.items() if why}
        kept = tuple(s for s in collection.scenarios if not reasons[s.name])
        collections[path.name] = Collection(collection.title, collection.blobs, kept)
    return collections, skipped


def _reason(scenario: Scenario) -> str:
    """Return why no guest can run a scenario, or ``""``."""
    if set(scenario.boot.get("builtin", ())) - {BUILTIN_KEY}:
        return f"wants another builtin key than {BUILTIN_KEY}"
    return next((SKIPPED_BOOTS[name] for name in scenario.boot if name in SKIPPED_BOOTS), "")


def document_of(collection: Collection) -> dict[str, Any]:
    """Return a collection in the format of its file."""
    return {
        "title": collection.title,
        "blobs": {name: data.hex() for name, data in collection.blobs.items()},
        "scenarios": [
            {
                "name": scenario.name,
                "source": scenario.source,
                "steps": [
                    {**step.arguments, "call": step.call, "as": step.result_name}
                    | {"expect": dict(step.expected)}
                    for step in scenario.steps
                ],
            }
            for scenario in collection.scenarios
        ],
    }


def groups_file(groups: tuple[str, ...]) -> bytes:
    """Return the names that expectations for a kernel go by, as the agent reads them."""
    return json.dumps(groups).encode()
