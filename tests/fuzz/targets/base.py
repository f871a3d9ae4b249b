"""What a fuzz target is, and the keys and files that seeds are made with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.object.target import TargetValues
from bpfseal.signing.signer import KeySigner, load_signer
from support.files import LIBBPF_TOOLS, ROOT

from ..mutators import BYTES, Mutator

KEYS: Final = Path(__file__).parents[1] / "keys"
"""Keys for tests alone: with them the seeds, and so all inputs, are the same in every run."""

TARGET_VALUES: Final = TargetValues(kconfig={"CONFIG_HZ": "250"})

AT: Final = datetime(2026, 7, 1, tzinfo=UTC)
"""The time that validity periods are held against."""

_LARGEST: Final = 20_000
"""Bytes of the largest fetched object that is a seed: small ones are damaged more thoroughly."""


@dataclass(frozen=True, slots=True)
class Target:
    """An entry into the library for bytes or text that nobody vouches for.

    Attributes:
        name: unique; it names files, so it has no dot and no slash.
        seeds: returns inputs that are taken, or nearly.
        call: gives one input to the library; only a `BpfsealError` may leave it.
        mutators: what damages an input, each as likely as the others.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    call: Callable[[bytes], object]
    mutators: tuple[Mutator, ...] = BYTES


@cache
def signer(name: str = "rsa2048") -> KeySigner:
    """Return the signer with one of the test keys."""
    return load_signer(key_file(name), certificate_file(name))


def key_file(name: str) -> bytes:
    """Return a test key's file."""
    return (KEYS / f"{name}.test-key.pem").read_bytes()


def certificate_file(name: str) -> bytes:
    """Return the file of a test key's certificate."""
    return (KEYS / f"{name}.test-certificate.pem").read_bytes()


@cache
def object_files() -> tuple[bytes, ...]:
    """Return the examples, and small ones of the objects that ``make objects`` has fetched."""
    examples = sorted((ROOT / "examples").glob("*.bpf.o"))
    fetched = sorted(LIBBPF_TOOLS.glob("**/*.bpf.o"))
    small = [path for path in fetched if path.stat().st_size < _LARGEST]
    return tuple(path.read_bytes() for path in (*examples, *small[:8]))


@cache
def signed(example: str, scheme: str, key: str = "rsa2048") -> SignedLoader:
    """Return an example's loader, signed if its scheme can be."""
    data = (ROOT / "examples" / f"{example}.bpf.o").read_bytes()
    loader = SignedLoader(generate(read_object(data, f"{example}.bpf.o", TARGET_VALUES), scheme))
    return sign_loader(loader, signer(key)) if loader.loader.scheme.signed_parts else loader
