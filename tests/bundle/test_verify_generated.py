"""No message that verifies is a downgrade trap: thousands of generated ones against the model.

The oracle does what a kernel does, one release, one build and one set of keys at a time: it walks
the SignerInfos in their order and lets the first bad signature of a known key end the walk.
Verification reasons about each SignerInfo alone (`bpfseal.bundle.coverage`). Run as a program, with
a seed and a number, it tries more than the suite does::

    PYTHONPATH=tests python -m bundle.test_verify_generated 1 20000
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from bpfseal.bpf.uapi import KeyringId, MapType, ProgFlag, ProgType
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader import generate
from bpfseal.loader.model import LOADER_LICENSE, Loader
from bpfseal.object import read_object
from bpfseal.object.target import DEFAULT_TARGET
from bpfseal.release import RELEASES, KernelCrypto
from bpfseal.signing import pkcs7, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs7 import Payload
from support import cms_writer
from support.cms_writer import Generator, Key
from support.files import EXAMPLE

SEED = 20261129
COUNT = 2000
MODELS = ("6.18", "7.1", "7.3")
"""Releases that differ in what they can compute and what they hash."""


@cache
def loader() -> Loader:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name, DEFAULT_TARGET)
    return generate(obj, "loadtime")


def trusted() -> tuple[Key, ...]:
    return (cms_writer.key("A"), cms_writer.key("B"), cms_writer.key("D", "ec"))


def others() -> tuple[Key, ...]:
    issued = cms_writer.key("leaf", by="A"), cms_writer.key("foreign leaf", by="C")
    return (cms_writer.key("C"), *issued)


def payloads() -> dict[str, bytes]:
    """What signatures are over, the most frequent first."""
    insns = loader().insns
    return {
        "whole": insns + loader().metadata,
        "instructions": insns,
        "with BTF": insns + b"\x9f\xebBTF",
        "other": b"other bytes",
    }


def subsets(certificates: Sequence[Certificate]) -> Iterator[tuple[Certificate, ...]]:
    for size in range(1, len(certificates) + 1):
        yield from itertools.combinations(certificates, size)


BEFORE_7_3 = tuple(
    {
        release.crypto(full=full): None
        for release in RELEASES.values()
        for full in (True, False)
        if not release.covers_bound_maps
    }
)
"""What the kernels can compute that hash the instructions alone."""


def takes(
    cms: bytes, payload: Payload, certificates: Sequence[Certificate], crypto: KernelCrypto
) -> bool:
    """Tell whether a kernel with some of the keys takes a message."""
    try:
        message = pkcs7_parser.parse(cms, crypto)
    except RefusedError:
        return False
    for keys in subsets(certificates):
        try:
            pkcs7.check(message, payload, pkcs7.find_in(each.parsed for each in keys), crypto)
        except RefusedError:
            continue
        return True
    return False


def is_trap(cms: bytes, insns: Payload, certificates: Sequence[Certificate]) -> bool:
    """Tell whether some kernel with some of the keys takes the instructions alone."""
    return any(takes(cms, insns, certificates, crypto) for crypto in BEFORE_7_3)


@dataclass(frozen=True, slots=True)
class Outcome:
    cms: bytes
    verifies: bool
    verifies_beside_a_good_one: bool
    is_trap: bool


def verifies(certificates: Sequence[Certificate], *messages: bytes) -> bool:
    signatures = tuple(Signature(cms, b"") for cms in messages)
    try:
        verify_loader(SignedLoader(loader(), signatures), certificates)
    except BpfsealError:
        return False
    return True


def outcomes(seed: int, count: int) -> Iterator[Outcome]:
    generator = Generator(trusted(), others(), payloads(), seed)
    certificates = [each.certificate for each in trusted()]
    good = cms_writer.message(cms_writer.signer_info(trusted()[0], payloads()["whole"]))
    insns = Payload(loader().insns)
    for _ in range(count):
        cms = generator.message()
        yield Outcome(
            cms,
            verifies=verifies(certificates, cms),
            verifies_beside_a_good_one=verifies(certificates, good, cms),
            is_trap=is_trap(cms, insns, certificates),
        )


def tally(found: Iterable[Outcome]) -> Counter[str]:
    count: Counter[str] = Counter()
    for each in found:
        count["messages"] += 1
        count["traps"] += each.is_trap
        count["verify"] += each.verifies
        count["verify beside a good one"] += each.verifies_beside_a_good_one
        missed = each.is_trap and (each.verifies or each.verifies_beside_a_good_one)
        count["traps that verify"] += missed
    return count


def test_no_generated_message_that_verifies_is_a_trap() -> None:
    count = tally(outcomes(SEED, COUNT))
    assert count["messages"] == COUNT
    assert count["traps that verify"] == 0
    # The generator makes enough of each kind for that to mean something.
    assert count["traps"] > COUNT // 20
    assert count["verify"] > COUNT // 25
    assert count["verify beside a good one"] > COUNT // 4


def runs_tampered(name: str, cms: bytes) -> bool:
    """Tell whether the whole model of a release loads the loader with metadata that was changed."""
    kernel = ModelKernel(profile=PROFILES[name])
    for each in trusted():
        kernel.keyrings.add_key(KeyringId.SESSION, each.certificate.der)
    tampered = loader().metadata[:-1] + b"!"
    created = MapCreate(
        MapType.ARRAY, "m", 4, len(tampered), 1, excl_prog_hash=loader().excl_prog_hash
    )
    fd = kernel.map_create(created)
    kernel.map_update(fd, bytes(4), tampered)
    kernel.map_freeze(fd)
    request = ProgLoad(
        ProgType.SYSCALL,
        "p",
        loader().insns,
        LOADER_LICENSE,
        flags=ProgFlag.SLEEPABLE,
        fd_array=(fd,),
        signature=cms,
        keyring_id=KeyringId.SESSION,
    )
    try:
        kernel.prog_load(request)
    except KernelError:
        return False
    return True


def test_what_the_whole_model_loads_with_changed_metadata_never_verifies() -> None:
    generator = Generator(trusted(), others(), payloads(), SEED + 1)
    insns = Payload(loader().insns)
    certificates = [each.certificate for each in trusted()]
    loaded = 0
    for _ in range(60):
        cms = generator.message()
        for name in MODELS:
            if runs_tampered(name, cms):
                loaded += 1
                assert is_trap(cms, insns, certificates)
                assert not verifies(certificates, cms)
    assert loaded > 3


if __name__ == "__main__":
    for kind, number in tally(outcomes(int(sys.argv[1]), int(sys.argv[2]))).items():
        sys.stdout.write(f"{number:>8} {kind}\n")
