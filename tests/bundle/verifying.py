"""The smallest loader of each scheme, and signatures over any of its parts."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.object.model import BpfObject, MapSource, MapSpec
from bpfseal.release import Payload
from bpfseal.signing import cms, keygen
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.payload import joined
from bpfseal.signing.signer import KeySigner, load_signer
from support import cms_writer


def signer(name: str = "loader signing", key_type: str = "rsa2048") -> KeySigner:
    """Return the one key of this name and type in a test run."""
    return _signer(name, key_type)


@cache
def _signer(name: str, key_type: str) -> KeySigner:
    pair = keygen.generate(key_type, name)
    return load_signer(pair.private_key_pem, pair.certificate_pem)


def certificate(name: str = "loader signing") -> Certificate:
    return signer(name).certificate


def tiny(scheme_name: str) -> Loader:
    """Return a loader that makes one map."""
    table = MapSpec(
        "table", MapSource.DEFINED, MapType.HASH, key_size=4, value_size=8, max_entries=9
    )
    return generate(BpfObject("tiny", "little", "GPL", (), (table,)), scheme_name)


def signature_over(
    loader: Loader, payload: Payload, by: str = "loader signing", hash_name: str = "sha256"
) -> Signature:
    """Sign these parts, whatever the scheme says; our own tools would refuse some of it."""
    data = joined(payload, insns=loader.insns, metadata=loader.metadata, btf=loader.btf)
    return Signature(cms.build(data, signer(by), hash_name), certificate(by).der)


def signed_over(loader: Loader, *payloads: Payload) -> SignedLoader:
    """Return the loader with one signature for each list of parts."""
    return SignedLoader(loader, tuple(signature_over(loader, payload) for payload in payloads))


def signed(loader: Loader) -> SignedLoader:
    """Return the loader with the signature of its scheme."""
    return signed_over(loader, loader.scheme.signed_parts)


def openssl(*arguments: str | Path) -> bytes:
    """Run openssl and return its standard output."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl command line is missing")
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


def renamed(other: Certificate, key_id: bytes) -> Certificate:
    """Return a certificate of another key that bears this key id."""
    made = cms_writer.key("renamed")
    subject = other.subject.removeprefix("CN=")
    return cms_writer.certificate_for(
        made.private.public_key(), made.private, subject, key_id=key_id
    )


def signature_with(digest: str, data: bytes, name: str = "loader signing") -> Signature:
    """Return a signature with a digest that our own tools do not sign with."""
    own = signer(name)
    made = cms_writer.Key(own._key, own.certificate)
    info = cms_writer.signer_info(made, data, digest=digest)
    return Signature(cms_writer.message(info, digests=(digest,)), own.certificate.der)
