"""Which kernels take the loaders of which scheme: as the facts say, and as loading them shows."""

from __future__ import annotations

from functools import cache

import pytest

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.profile import FACTS, PROFILES, Profile
from bpfseal.kernel.model.schemes import expected_verdict, scheme_for
from bpfseal.kernel.model.verdict import KeyringKind, Verdict
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.release import RELEASES
from bpfseal.scheme import SCHEMES
from bpfseal.signing.signer import load_signer
from support.files import EXAMPLE, LIBBPF_TOOLS

from ..support import key_pair

PATHS = (EXAMPLE, LIBBPF_TOOLS / "bindsnoop.bpf.o", LIBBPF_TOOLS / "biolatency.bpf.o")

TAKEN_BY = {
    "kfunc": {"kfunc"},
    "inline-original": {"kfunc", "6.18", "6.19", "7.0", "7.1", "7.2"},
    "inline": {"kfunc", "6.18", "7.1", "7.2"},
    "loadtime": {"7.3", "7.3+bpf-keyring"},
    "unsigned": set(PROFILES),
}
"""The kernels that load the artifacts of a scheme."""


@cache
def signed(name: str, scheme: str) -> SignedLoader:
    path = next(path for path in PATHS if path.name == name)
    if not path.exists():
        pytest.skip(f"{path.name} is missing: run make objects")
    loader = SignedLoader(generate(read_object(path.read_bytes(), path.name), scheme))
    key = key_pair("rsa2048")
    signer = load_signer(key.private_key_pem, key.certificate_pem)
    return sign_loader(loader, signer) if SCHEMES[scheme].signed_parts else loader


def kernel_of(profile: Profile) -> ModelKernel:
    kernel = ModelKernel(profile=profile, kernel_btf=SyntheticBtf())
    kernel.keyrings.add_key(KeyringId.SESSION, key_pair("rsa2048").certificate_der)
    return kernel


def refusal_of(artifact: SignedLoader, profile: Profile) -> tuple[str, int] | None:
    try:
        load(kernel_of(profile), artifact, unsigned=not artifact.signatures)
    except KernelError as error:
        return error.step, error.errno
    return None


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", [path.name for path in PATHS])
def test_an_object_loads_where_its_scheme_is_taken(name: str, scheme: str) -> None:
    for profile in PROFILES.values():
        verdict = expected_verdict(SCHEMES[scheme], profile)
        expected = None if verdict is None else (verdict.step, verdict.errno)
        assert refusal_of(signed(name, scheme), profile) == expected, profile.name
        assert (expected is None) == (profile.name in TAKEN_BY[scheme]), profile.name


def test_the_best_scheme_of_each_kernel() -> None:
    best = {profile.name: scheme_for(profile) for profile in PROFILES.values()}
    assert {name: scheme.name if scheme else None for name, scheme in best.items()} == {
        "kfunc": "kfunc",
        "6.12": None,
        "6.17": None,
        "6.18": "inline",
        "6.18-unverified": None,
        "6.19": "inline-original",
        "7.0": "inline-original",
        "7.1": "inline",
        "7.2": "inline",
        "7.3": "loadtime",
        "7.3+bpf-keyring": "loadtime",
    }


def test_every_release_has_a_profile() -> None:
    assert set(RELEASES) <= set(PROFILES)


def test_every_fact_of_a_profile_has_a_source() -> None:
    assert set(Profile.__dataclass_fields__) - {"name", "description"} == set(FACTS)


def test_a_field_that_some_updates_have_is_asked_of_the_kernels_btf() -> None:
    """6.18.15 has no bpf_map.excl and 6.18.44 has: without a BTF it is assumed, and said so."""
    kernel = kernel_of(PROFILES["6.18"])
    load(kernel, signed(EXAMPLE.name, "inline"))
    assert "field bpf_map.excl" in kernel.btf.assumed


def test_the_hook_of_73_sees_the_verdict_before_the_verifier_runs() -> None:
    seen: list[ProgramFacts] = []

    def hook(operation: Operation, program: ProgramFacts) -> int:
        assert operation is Operation.BPF_PROG_LOAD
        seen.append(program)
        return 0

    kernel = ModelKernel(
        profile=PROFILES["7.3"], kernel_btf=SyntheticBtf(functions=()), hooks=[hook]
    )
    kernel.keyrings.add_key(KeyringId.SESSION, key_pair("rsa2048").certificate_der)
    load(kernel, signed(EXAMPLE.name, "loadtime"))
    first, *inner = seen
    assert (first.verdict, first.keyring) == (Verdict.OK, KeyringKind.USER)
    assert {(program.verdict, program.is_kernel) for program in inner} == {(Verdict.UNSIGNED, True)}
