"""Tokens of SoftHSM in a temporary directory, with keys that the tests have as files too.

The library reads where its tokens are when a process first uses it, so that there is one set of
tokens for a whole test run.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bpfseal.signing import keygen
from bpfseal.signing.keygen import KeyPair

PIN = "1234"
TOKEN_LABELS = ("release", "other")
KEYS = {"rsa2048": "%01", "p256": "%02", "p384": "%03"}
"""Keys of the first token, labelled by their type, with their ids; P-384 has no certificate."""

TWINS = ("%04", "%05")
"""Two keys that share the label ``twin``; the second has the first one's certificate."""

_TOOLS = ("softhsm2-util", "pkcs11-tool")
_PLACES = ("usr/lib/softhsm", "usr/lib/*/softhsm", "usr/lib64/softhsm", "usr/lib64/pkcs11")


@cache
def pair(key_type: str) -> KeyPair:
    """Return the key and certificate that are on the token too; ``twin`` is an RSA key."""
    return keygen.generate("rsa2048" if key_type == "twin" else key_type, f"token {key_type}")


@cache
def module() -> str:
    """Return the path of SoftHSM's library, with the tokens ready; skips where it is missing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    found = [str(path) for place in _PLACES for path in Path("/").glob(f"{place}/libsofthsm2.so")]
    if missing or not found:
        pytest.skip(f"SoftHSM 2 and OpenSC are missing: {', '.join(missing) or 'libsofthsm2.so'}")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is missing (bpfseal[hsm])")
    folder = TemporaryDirectory(prefix="softhsm")
    atexit.register(folder.cleanup)
    _fill(Path(folder.name), found[0])
    return found[0]


def uri(path: str, query: str = "") -> str:
    """Return the URI of an object, with the library in the query."""
    return f"pkcs11:{path}?module-path={module()}{query}"


def _fill(folder: Path, library: str) -> None:
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    for label in TOKEN_LABELS:
        pins = ("--pin", PIN, "--so-pin", "12345678")
        _run("softhsm2-util", "--init-token", "--free", "--label", label, *pins)
    for key_type, key_id in KEYS.items():
        _import(folder, key_type, key_type, key_id[1:])
    for key_type in ("rsa2048", "p256"):
        _write_certificate(folder, library, key_type, KEYS[key_type][1:])
    _import(folder, "rsa2048", "twin", TWINS[0][1:])
    _import(folder, "twin", "twin", TWINS[1][1:])
    _write_certificate(folder, library, "rsa2048", TWINS[1][1:])


def _import(folder: Path, key_type: str, label: str, key_id: str) -> None:
    (folder / "key.pem").write_bytes(pair(key_type).private_key_pem)
    names = ("--token", TOKEN_LABELS[0], "--label", label, "--id", key_id)
    _run("softhsm2-util", "--import", folder / "key.pem", *names, "--pin", PIN)
    (folder / "key.pem").unlink()


def _write_certificate(folder: Path, library: str, key_type: str, key_id: str) -> None:
    (folder / "certificate").write_bytes(pair(key_type).certificate_der)
    login = ("--module", library, "--token-label", TOKEN_LABELS[0], "--login", "--pin", PIN)
    what = ("--write-object", folder / "certificate", "--type", "cert", "--id", key_id)
    _run("pkcs11-tool", *login, *what)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
