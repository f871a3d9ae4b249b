"""``bpfseal import``: a light skeleton to a bundle, verified as far as it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfseal.bundle.store import read_bundle
from support.lskel_writer import header_of

from .support import OBJECT, Cli, Keys, listing, run_process


@pytest.fixture
def header(cli: Cli, keys: Keys) -> str:
    """A signed light skeleton of the example, in the working directory."""
    assert cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc", "-o", "origin").status == 0
    (variant,) = read_bundle(Path("origin")).variants
    Path("tool.lskel.h").write_text(header_of(variant))
    return "tool.lskel.h"


def test_a_header_becomes_a_bundle_beside_it(cli: Cli, header: str) -> None:
    done = cli("import", header)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "tool.bpfseal: exectrace_bpf, scheme kfunc, signature not verified (--certificate FILE)\n"
    )
    assert listing(Path()) == ["origin", "tool.bpfseal", "tool.lskel.h"]


def test_with_a_certificate_the_signature_is_verified(cli: Cli, keys: Keys, header: str) -> None:
    done = cli("import", header, "--certificate", keys.certificate, "--json")
    assert done.status == 0
    (result,) = done.document["results"]
    assert (result["signed"], result["verified"], result["scheme"]) == (True, True, "kfunc")
    assert cli("verify", "tool.bpfseal", "--certificate", keys.certificate).status == 0


def test_another_certificate_is_a_negative_verdict_and_writes_nothing(
    cli: Cli, other_keys: Keys, header: str
) -> None:
    done = cli("import", header, "--certificate", other_keys.certificate)
    assert done.status == 1
    assert done.err.startswith(f"bpfseal: import: {header}: ")
    assert listing(Path()) == ["origin", header]


@pytest.mark.parametrize("part", ["insns", "data", "signature"])
def test_import_and_export_give_the_bytes_of_the_header(cli: Cli, header: str, part: str) -> None:
    cli("import", header)
    for bundle in ("origin", "tool.bpfseal"):
        assert cli("export", bundle, f"--{part}", f"{bundle}.{part}").status == 0
    assert Path(f"origin.{part}").read_bytes() == Path(f"tool.bpfseal.{part}").read_bytes()


def test_an_error_names_the_line(cli: Cli, header: str) -> None:
    text = Path(header).read_text()
    Path(header).write_text(text.replace("\\x", "\\y", 1))
    done = cli("import", header)
    assert done.status == 3
    assert done.err.startswith(f"bpfseal: import: {header}: line ")
    assert "is no hex escape" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "int main(void) { return 0; }\n", "\0\xff"])
def test_what_is_no_light_skeleton_is_refused(cli: Cli, text: str) -> None:
    Path("x.h").write_bytes(text.encode("latin-1"))
    assert cli("import", "x.h").status == 3
    assert cli("import", "missing.h").status == 3


def test_stdin_and_stdout(header: str) -> None:
    done = run_process("import", "-", "-o", "-", data=Path(header).read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    Path("piped").write_bytes(done.stdout)
    assert read_bundle(Path("piped")).name == "exectrace_bpf"


def test_json_needs_stdout_for_itself(cli: Cli, header: str) -> None:
    assert cli("import", header, "-o", "-", "--json").status == 2


def test_a_skeleton_of_ours_is_refused_by_its_name(cli: Cli, keys: Keys) -> None:
    """Its header holds many variants; it is not what the reference tool writes."""
    assert cli("sign", OBJECT, *keys.signing, "-o", "signed").status == 0
    assert cli("skeleton", "c", "signed", "-o", "ours.lskel.h").status == 0
    for verb in ("import", "inspect"):
        done = cli(verb, "ours.lskel.h")
        assert done.status == 3
        assert "a C skeleton made by bpfseal" in done.err
        assert "give the bundle that it was made from" in done.err
