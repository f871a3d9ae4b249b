"""Keys and the openssl command line, for the tests of signing."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair, generate
from bpfseal.signing.signer import KeySigner, load_signer

PAYLOAD = bytes(range(256)) * 3
_SEED = 20261123


@cache
def pair(key_type: str) -> KeyPair:
    """Return the one key of this type in a test run."""
    return generate(key_type, "loader signing")


def signer(key_type: str) -> KeySigner:
    made = pair(key_type)
    return load_signer(made.private_key_pem, made.certificate_pem)


def certificate(key_type: str) -> Certificate:
    return Certificate.from_der(pair(key_type).certificate_der)


def openssl(*arguments: str | Path) -> bytes:
    """Run openssl and return its standard output."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command line is missing")
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def openssl_sign(made: KeyPair, payload: bytes, *options: str | Path) -> bytes:
    """Sign with ``openssl cms``, detached, in DER."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(made.private_key_pem)
        (folder / "certificate").write_bytes(made.certificate_pem)
        (folder / "payload").write_bytes(payload)
        inputs = ("-in", folder / "payload", "-inkey", folder / "key")
        arguments = (*inputs, "-signer", folder / "certificate", "-outform", "DER", *options)
        return openssl("cms", "-sign", "-binary", *arguments)


def seeded() -> random.Random:
    """Return randomness that is the same in every run."""
    return random.Random(_SEED)  # noqa: S311 - not for keys


def flips(data: bytes, count: int) -> Iterator[bytes]:
    """Yield `data` with one random bit flipped, `count` times, the same ones in every run."""
    chance = seeded()
    for _ in range(count):
        position = chance.randrange(len(data))
        flipped = bytearray(data)
        flipped[position] ^= 1 << chance.randrange(8)
        yield bytes(flipped)
