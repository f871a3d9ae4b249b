"""Loaders of real objects: recorded digests, and that all of them generate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES
from support.files import EXAMPLE, LIBBPF_TOOLS

# Recorded from this generator on 2026-11-23, so that no byte changes unnoticed.
EXAMPLE_INSNS = "588d0f1d54edf598c21facfb254d2f6d4e37b13238f74617a7533c035bd07d84"
EXAMPLE_METADATA = "8c066a19cc34b876cccb1b626368526ac483ba64b3d80526289ca1432cdc927b"

TOOLS = 52
"""Objects in the package that `make objects` fetches."""


def test_the_kfunc_loader_of_the_example_is_the_recorded_one() -> None:
    loader = generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), "kfunc")
    assert hashlib.sha256(loader.insns).hexdigest() == EXAMPLE_INSNS
    assert hashlib.sha256(loader.metadata).hexdigest() == EXAMPLE_METADATA
    assert (loader.excl_prog_hash.hex(), loader.metadata_digest.hex()) == (
        EXAMPLE_INSNS,
        EXAMPLE_METADATA,
    )


def tools() -> list[Path]:
    found = sorted(LIBBPF_TOOLS.glob("*.bpf.o"))
    if not found:
        pytest.skip("the objects of libbpf-tools are missing: run make objects")
    return found


def test_every_tool_of_libbpf_tools_generates() -> None:
    paths = tools()
    assert len(paths) == TOOLS
    for path in paths:
        obj = read_object(path.read_bytes(), path.name)
        loader = generate(obj, "kfunc")
        assert len(loader.programs) == len(obj.programs) > 0
        assert len(loader.maps) == len(obj.maps)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_metadata_differs_between_schemes_only_by_what_the_object_needs(scheme: str) -> None:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    kfunc, other = generate(obj, "kfunc"), generate(obj, scheme)
    assert other.metadata == kfunc.metadata
    assert (other.maps, other.programs) == (kfunc.maps, kfunc.programs)
