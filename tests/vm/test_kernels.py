"""One artifact, made once with every scheme, on real kernels of every series.

`make vm` runs this on all series that the archive has; BPFSEAL_VM_SERIES names some. It is not part
of `make test`, since each boot takes its time.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.store import pack
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer
from support.files import EXAMPLE, LIBBPF_TOOLS

from . import guest, initramfs, kernels

pytestmark = pytest.mark.vm

SERIES = os.environ.get("BPFSEAL_VM_SERIES", ",".join(kernels.SERIES)).split(",")

SCHEME_OF = {
    "6.12": None,
    "6.17": None,
    "6.18": ("inline-original", "inline"),
    "6.19": ("inline-original", "inline"),
    "7.0": ("inline-original", "inline"),
    "7.1": ("inline-original", "inline"),
    "7.2": ("inline-original", "inline"),
    "7.3": ("loadtime",),
}
"""Schemes that the kernels of a series may take; which of them one takes, its features say."""

REFUSAL = {
    "inline-original": ("prog_run", "EINVAL"),
    "inline": ("prog_run", "EINVAL"),
    "loadtime": ("prog_load", "EKEYREJECTED"),
}
"""What a kernel answers to changed metadata, by scheme."""

NOT_HERE = {"ENOENT", "EINVAL"}
"""Answers to programs that a small guest cannot host: no such function, or a map without size."""

LEAST_LOADED = 35


@dataclass(frozen=True)
class Artifacts:
    """The bundles of all objects, signed once, and the guest that they go to."""

    base: bytes
    certificate: bytes
    bundles: dict[str, Bundle]


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    for program in (guest.QEMU, str(initramfs.BUSYBOX)):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing (Debian: qemu-system-x86, busybox-static)")
    paths = sorted(LIBBPF_TOOLS.glob("*.bpf.o"))
    if not paths:
        pytest.skip("the objects of libbpf-tools are missing: run make objects")
    key = generate_key("rsa2048", "vm")
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    bundles = {path.name: signed_bundle(path, signer) for path in [EXAMPLE, *paths]}
    agent = Path(__file__).with_name(initramfs.AGENT)
    return Artifacts(initramfs.build_base(agent), key.certificate_der, bundles)


def signed_bundle(path: Path, signer: Signer) -> Bundle:
    obj = read_object(path.read_bytes(), path.name)
    loaders = [generate(obj, scheme) for scheme in SIGNED_SCHEMES]
    variants = tuple(sign_loader(SignedLoader(loader), signer) for loader in loaders)
    return Bundle(obj.name, variants)


def tampered(bundle: Bundle) -> Bundle:
    """Return the bundle with one bit of the metadata changed behind the signature's back."""

    def change(signed: SignedLoader) -> SignedLoader:
        data = bytearray(signed.loader.metadata)
        data[len(data) // 2] ^= 1
        return replace(signed, loader=replace(signed.loader, metadata=bytes(data)))

    return replace(bundle, variants=tuple(change(variant) for variant in bundle.variants))


def job_files(artifacts: Artifacts, scheme: str) -> dict[str, bytes]:
    files = {"certificate": artifacts.certificate}
    for name, bundle in artifacts.bundles.items():
        for kind, value, check in (("good", bundle, True), ("tampered", tampered(bundle), False)):
            files[f"{name}.{kind}.json"] = json.dumps({"scheme": scheme, "check": check}).encode()
            files[f"{name}.{kind}.bpfseal"] = pack(value)
    return files


@pytest.fixture(scope="session")
def packages() -> dict[str, str]:
    try:
        return kernels.newest_packages()
    except kernels.FetchError as error:
        pytest.skip(f"the kernels cannot be fetched: {error}")


@pytest.mark.parametrize("series", SERIES)
def test_one_artifact_loads_on_every_series(
    series: str, artifacts: Artifacts, packages: dict[str, str]
) -> None:
    if series not in packages:
        pytest.skip(f"the archive has no kernel of the series {series} any more")
    kernel = kernels.fetch_kernel(packages[series])
    takes = SCHEME_OF[series]
    scheme = "auto" if takes else "loadtime"
    answers = guest.run(kernel, artifacts.base, job_files(artifacts, scheme))
    jobs = answers.jobs
    assert len(jobs) == 2 * len(artifacts.bundles)
    assert all(job["leaked"] == 0 for job in jobs.values())
    if takes is None:
        assert answers.head["scheme"] is None
        assert {(job["step"], job["errno"]) for job in jobs.values()} <= {
            ("map_create", "EINVAL"),
            ("map_create", "E2BIG"),
        }
        return
    assert answers.head["scheme"] in takes
    good = {name: job for name, job in jobs.items() if name.endswith(".good")}
    loaded = [name for name, job in good.items() if job["step"] == "loaded"]
    others = {name: job for name, job in good.items() if job["step"] != "loaded"}
    report = {name: (job["step"], job["errno"], job["log"]) for name, job in others.items()}
    assert {(job["step"], job["errno"] in NOT_HERE) for job in others.values()} <= {
        ("prog_run", True)
    }, report
    assert len(loaded) >= LEAST_LOADED, report
    refused = REFUSAL[answers.head["scheme"]]
    assert {
        (job["step"], job["errno"]) for name, job in jobs.items() if name.endswith(".tampered")
    } == {refused}
    print(
        f"\n{answers.head['kernel']}: scheme {answers.head['scheme']}, "
        f"{len(loaded)} of {len(good)} loaded, {len(others)} not hosted by this guest; "
        f"all {len(good)} tampered ones refused with {refused[1]}"
    )
