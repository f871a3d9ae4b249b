"""Bundles of the examples, unsigned or signed, for skeletons."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer
from support.files import ROOT

KEY = generate_key("p256", "skeletons")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root")


@cache
def unsigned(name: str) -> Bundle:
    """The unsigned loader of an example."""
    loader = generate(read_object(_path(name).read_bytes(), name), "unsigned")
    return Bundle(loader.name, (SignedLoader(loader),))


@cache
def signed(name: str, *schemes: str) -> Bundle:
    """Signed loaders of an example, and the unsigned one with the scheme ``unsigned``."""
    obj = read_object(_path(name).read_bytes(), name)
    signer = load_signer(KEY.private_key_pem, KEY.certificate_pem)
    loaders = [SignedLoader(generate(obj, scheme)) for scheme in schemes]
    return Bundle(obj.name, tuple(sign_loader(loader, signer) for loader in loaders))


def _path(name: str) -> Path:
    return ROOT / "examples" / f"{name}.bpf.o"


def open_fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}
