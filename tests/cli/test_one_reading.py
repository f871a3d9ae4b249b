"""What one verb verifies no other verb, and not the library, takes for something else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

import bpfseal
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import InputError
from bpfseal.kernel.model import ModelKernel
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.signing.signer import load_signer
from support.lskel_writer import header_of

from .support import MODEL, OBJECT, Cli, Keys


def polyglot(keys: Keys, first: str) -> bytes:
    """Return a tar that begins with a directory, with a genuine header as a blob of another loader.

    Read as C, ``//`` makes a comment of the tar's own bytes up to the first line of the header.
    """
    signer = load_signer(keys.private_key.read_bytes(), keys.certificate.read_bytes())
    obj = read_object(OBJECT.read_bytes(), OBJECT.name)
    genuine = header_of(sign_loader(SignedLoader(generate(obj, "loadtime")), signer)).encode()
    loader = generate(obj, "unsigned")
    files = encode(Bundle("x", (SignedLoader(loader),)))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo(first)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in (("header", b"\n" + genuine), *files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("first", ["//", "/*", "#", "blobs"])
def test_a_file_of_two_kinds_is_refused_by_all(cli: Cli, keys: Keys, first: str) -> None:
    path = Path("polyglot")
    path.write_bytes(polyglot(keys, first))
    certificate = ("--certificate", keys.certificate)
    for arguments in (
        ("verify", path, *certificate),
        ("verify", path, *certificate, "--strict"),
        ("load", path, *MODEL, "--scheme", "unsigned"),
        ("inspect", path),
        ("sign", path, *keys.signing, "-o", "out"),
        ("skeleton", "python", path),
        ("export", path, "--insns", "out"),
        ("import", path, "-o", "out"),
        ("push", path, "localhost:1/x", "--plain-http"),
    ):
        done = cli(*arguments)
        assert (done.status, done.out) == (3, ""), arguments
        assert done.err.count("\n") == 1
    with pytest.raises(InputError):
        bpfseal.load(path, ModelKernel(), scheme="unsigned")
    with pytest.raises(InputError):
        bpfseal.read(path)


def test_import_takes_headers_alone(cli: Cli, keys: Keys) -> None:
    cli("sign", OBJECT, *keys.signing, "-o", "a")
    for path in ("a", OBJECT):
        done = cli("import", path, "-o", "out")
        assert done.status == 3
        assert "a light skeleton is wanted" in done.err
    assert not Path("out").exists()


def test_what_was_verified_is_what_is_loaded(cli: Cli, keys: Keys) -> None:
    """The library's way: one value, whatever becomes of the file."""
    cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc", "-o", "a")
    bundle = bpfseal.read("a")
    Path("a").write_bytes(b"something else")
    kernel = ModelKernel()
    kernel.keyrings.add_key(-3, (keys.folder / "cert.der").read_bytes())
    with bpfseal.load(bundle, kernel) as skel:
        assert skel.scheme == "kfunc"
