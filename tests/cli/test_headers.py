"""A C light skeleton is an input like a bundle."""

from __future__ import annotations

from pathlib import Path

from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.signing.signer import load_signer
from support.lskel_writer import header_of

from .support import OBJECT, Cli, Keys


def write_header(place: Path, keys: Keys) -> Path:
    signer = load_signer(keys.private_key.read_bytes(), keys.certificate.read_bytes())
    loader = generate(read_object(OBJECT.read_bytes(), OBJECT.name), "loadtime")
    path = place / "exectrace.lskel.h"
    path.write_text(header_of(sign_loader(SignedLoader(loader), signer)))
    return path


def test_a_header_is_verified_like_a_bundle(cli: Cli, empty_place: Path, keys: Keys) -> None:
    path = write_header(empty_place, keys)
    done = cli("--json", "verify", path, "--certificate", keys.certificate)
    assert done.status == 0
    assert done.document["results"][0]["scheme"] == "loadtime"


def test_a_changed_header_does_not_verify(cli: Cli, empty_place: Path, keys: Keys) -> None:
    path = write_header(empty_place, keys)
    text = path.read_text()
    at = text.index("opts_data[]")
    at = text.index("\\x", at + 4000)
    path.write_text(
        text[: at + 2] + ("00" if text[at + 2 : at + 4] != "00" else "01") + text[at + 4 :]
    )
    assert cli("verify", path, "--certificate", keys.certificate).status == 1


def test_a_header_is_inspected_and_exported(cli: Cli, empty_place: Path, keys: Keys) -> None:
    path = write_header(empty_place, keys)
    assert cli("inspect", path).status == 0
    assert cli("export", path, "--data", "data.bin").status == 0
    loader = generate(read_object(OBJECT.read_bytes(), OBJECT.name), "loadtime")
    assert (empty_place / "data.bin").read_bytes() == loader.metadata
