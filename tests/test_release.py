"""The facts about releases: complete, each with its source, and as the kernels answered."""

from __future__ import annotations

import errno

import pytest

from bpfseal.release import ML_DSA, RELEASES, Release, digests_of, names_of
from bpfseal.scheme import SCHEMES
from bpfseal.signing import mldsa, oids

FACTS = (
    "signed_parts",
    "has_verify_kfunc",
    "has_excl",
    "digests",
    "algorithms",
    "named_algorithms",
    "empty_signature_errno",
)


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_every_fact_says_where_it_is_from(release: Release) -> None:
    assert set(release.sources) == set(FACTS)
    assert all(release.sources.values())


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_what_a_release_covers_is_what_some_scheme_signs(release: Release) -> None:
    assert release.signed_parts in [scheme.signed_parts for scheme in SCHEMES.values()]
    assert release.payloads[-1] == ("insns",)


@pytest.mark.parametrize("release", RELEASES.values(), ids=lambda release: release.name)
def test_every_digest_and_algorithm_has_an_answer(release: Release) -> None:
    assert set(release.digests) == set(oids.DIGESTS)
    assert set(release.algorithms) == {"rsa", "ecdsa", *mldsa.KINDS}
    assert release.has_digest("md5") == release.has_algorithm("rsa-pss") == "no"


def test_ml_dsa_has_the_same_names_everywhere() -> None:
    assert ML_DSA == mldsa.KINDS


def test_the_recorded_answers() -> None:
    assert names_of(lambda each: each.covers_bound_maps) == "7.3, 7.3+bpf-keyring"
    assert names_of(lambda each: each.has_verify_kfunc) == "kfunc"
    assert names_of(lambda each: each.has_excl == "yes") == "7.2"
    assert names_of(lambda each: each.has_excl == "some") == "kfunc, 6.18, 7.1"
    assert names_of(lambda each: each.has_digest("sha512") == "no") == "7.1"
    assert names_of(lambda each: each.has_digest("sha512") == "some") == "kfunc, 7.2"
    assert names_of(lambda each: each.has_digest("sha3-256") == "yes") == "6.18, 6.19, 7.0"
    einval = names_of(lambda each: each.empty_signature_errno == errno.EINVAL)
    assert einval == "7.3, 7.3+bpf-keyring"


def test_digests_of_several_releases_are_those_that_any_has() -> None:
    assert "sha3-256" in digests_of([RELEASES["7.3"], RELEASES["6.18"]])
    assert digests_of([RELEASES["7.3"]]) == {"sha1", "sha224", "sha256", "sha384", "sha512"}
    assert digests_of([]) == frozenset()
