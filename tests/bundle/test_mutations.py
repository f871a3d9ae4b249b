"""10,000 damaged bundles, signatures and headers: none is accepted for what it is not.

A damaged input cannot be read, does not verify, or still holds the same signed parts (damage in
what nobody signs: names, bytes that CMS ignores). Nothing but errors of
this project comes out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpfseal.bundle import store
from bpfseal.bundle.lskel_import import import_header
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import BpfsealError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.signing.verify import verify_signature
from support.fuzz import mutations
from support.layouts import add_blob, blob_path, dumped
from support.lskel_writer import header_of
from support.object_writer import ObjectWriter

from .support import encode_files, packed
from .verifying import certificate, signed, tiny

SCHEMES = ("kfunc", "inline", "loadtime")
ORIGINAL = Bundle("tiny", tuple(signed(tiny(name)) for name in SCHEMES))
TRUSTED = [certificate()]

IN_THE_FILE = 2500
IN_A_BLOB = 3000
IN_THE_CMS = 3000
IN_A_HEADER = 1500


def parts(loader: Loader) -> tuple[bytes, bytes, bytes]:
    """Return what a signature vouches for."""
    return loader.insns, loader.metadata, loader.btf


SIGNED_PARTS = {variant.loader.scheme_name: parts(variant.loader) for variant in ORIGINAL.variants}


def accepted(bundle: Bundle) -> Iterator[SignedLoader]:
    """Yield the variants that verify."""
    for variant in bundle.variants:
        try:
            verify_loader(variant, TRUSTED)
        except BpfsealError:
            continue
        yield variant


def outcome(data: bytes) -> str:
    """Return what becomes of a bundle; fail if it is accepted for what it is not."""
    try:
        bundle = store.unpack(data, "damaged.bpfseal")
    except BpfsealError:
        return "unreadable"
    verified = list(accepted(bundle))
    for variant in verified:
        assert parts(variant.loader) == SIGNED_PARTS[variant.loader.scheme_name]
    return "accepted" if len(verified) == len(ORIGINAL.variants) else "refused"


def test_damage_anywhere_in_the_file_is_noticed() -> None:
    data = store.pack(ORIGINAL)
    assert outcome(data) == "accepted"
    outcomes = [outcome(damaged) for damaged in mutations(data, IN_THE_FILE, seed=1)]
    # What may be damaged without harm: the name of the bundle, in the index.
    assert outcomes.count("unreadable") > 0.99 * IN_THE_FILE


@pytest.mark.parametrize("seed", range(3))
def test_damage_in_a_blob_is_noticed_even_if_all_digests_are_made_right(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - damage, not secrets
    outcomes = []
    for number in range(IN_A_BLOB // 3):
        files, manifests, index = encode_files(ORIGINAL)
        manifest = chance.choice(manifests)
        entry = chance.choice([*manifest["layers"], manifest["config"]])
        content = files.pop(blob_path(entry))
        (damaged,) = mutations(content, 1, seed=number)
        add_blob(files, entry, damaged)
        for descriptor, document in zip(index["manifests"], manifests, strict=True):
            for layer in document["layers"]:  # a blob that others share
                if blob_path(layer) not in files:
                    add_blob(files, layer, content)
            add_blob(files, descriptor, dumped(document))
        files["index.json"] = dumped(index)
        outcomes.append(outcome(packed(files)))
    assert outcomes.count("refused") > len(outcomes) // 3, "the damage does not reach verification"


@pytest.mark.parametrize("scheme_name", SCHEMES)
def test_a_damaged_cms_message_verifies_only_for_what_was_signed(scheme_name: str) -> None:
    (variant,) = (v for v in ORIGINAL.variants if v.loader.scheme_name == scheme_name)
    (signature,) = variant.signatures
    payload = b"".join(getattr(variant.loader, part) for part in variant.loader.scheme.signed_parts)
    verified = 0
    for damaged in mutations(signature.cms, IN_THE_CMS // 3, seed=3):
        other = replace(variant, signatures=(Signature(damaged, signature.certificate),))
        verified += sum(1 for _ in accepted(Bundle("tiny", (other,))))
        try:
            verify_signature(damaged, payload + b"more", TRUSTED)
        except BpfsealError:
            continue
        pytest.fail(f"accepted for something else: {damaged.hex()}")
    assert verified < IN_THE_CMS // 30, "kernels ignore a few bytes of CMS, not many"


def test_damage_in_a_header_is_noticed() -> None:
    writer = ObjectWriter()
    writer.add_program("xdp", "drop")
    variant = signed(generate(writer.read(), "kfunc"))
    data = header_of(variant).encode()
    expected = parts(variant.loader)
    refused = 0
    for damaged in mutations(data, IN_A_HEADER, seed=4):
        try:
            bundle = import_header(damaged, "damaged.lskel.h")
        except BpfsealError:
            refused += 1
            continue
        for found in accepted(bundle):
            assert parts(found.loader) == expected
    assert refused > IN_A_HEADER // 2
