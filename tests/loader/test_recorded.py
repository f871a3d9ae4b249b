"""Loaders of real objects: recorded digests, and that all of them generate."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES
from support.files import EXAMPLE, LIBBPF_TOOLS

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
"""Digests of what the reference generator made of the examples; `provenance` says which build."""

TOOLS = 52
"""Objects in the package that `make objects` fetches."""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", RECORDED["objects"])
def test_a_loader_is_byte_for_byte_what_the_reference_generator_makes(
    name: str, scheme: str
) -> None:
    recorded = RECORDED["objects"][name]
    data = EXAMPLE.with_name(name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == recorded["sha256"]
    loader = generate(read_object(data, name), scheme)
    assert {
        "insns": loader.excl_prog_hash.hex(),
        "metadata": loader.metadata_digest.hex(),
    } == recorded["loaders"][scheme]


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
