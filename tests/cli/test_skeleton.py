"""``bpfseal skeleton``: source that embeds a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import OBJECT, Cli, Keys, listing, run_process


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> str:
    assert cli("sign", OBJECT, *keys.signing, "-o", "a.bpfseal").status == 0
    return "a.bpfseal"


@pytest.mark.parametrize(
    ("language", "text"),
    [("c", "exectrace_bpf__open_and_load(void)"), ("python", "def load(kernel: Any = None")],
)
def test_source_goes_to_stdout_or_a_file(cli: Cli, signed: str, language: str, text: str) -> None:
    done = cli("skeleton", language, signed)
    assert (done.status, done.err) == (0, "")
    assert text in done.out
    source = done.out
    assert cli("skeleton", language, signed, "-o", "source").status == 0
    assert Path("source").read_text() == source


def test_all_variants_are_embedded_unless_one_is_chosen(cli: Cli, signed: str) -> None:
    done = cli("skeleton", "c", signed, "-o", "x.h", "--json")
    (result,) = done.document["results"]
    assert sorted(result["schemes"]) == ["inline", "inline-original", "kfunc", "loadtime"]
    done = cli("skeleton", "c", signed, "-o", "x.h", "--json", "--scheme", "kfunc")
    assert done.document["results"][0]["schemes"] == ["kfunc"]
    assert "insns_loadtime" not in Path("x.h").read_text()


def test_variants_that_nobody_signed_are_left_out_and_named(cli: Cli, keys: Keys) -> None:
    assert cli("build", OBJECT, "-o", "bare").status == 0
    assert cli("sign", "bare", *keys.signing, "--scheme", "loadtime", "-o", "partly").status == 0
    done = cli("skeleton", "c", "partly", "-o", "x.h", "--json")
    assert done.document["results"][0]["schemes"] == ["loadtime"]
    assert "left out, as nobody signed it: kfunc, inline-original, inline" in done.err
    assert "insns_kfunc" not in Path("x.h").read_text()


def test_an_object_becomes_an_unsigned_skeleton_when_asked(cli: Cli) -> None:
    assert cli("skeleton", "c", OBJECT, "--scheme", "unsigned").status == 0
    done = cli("skeleton", "c", OBJECT)
    assert done.status == 2
    assert "is not signed (bpfseal sign" in done.err


def test_nothing_is_written_when_it_cannot_be(cli: Cli, signed: str) -> None:
    Path("bad").write_bytes(Path(signed).read_bytes()[:-2000])
    assert cli("skeleton", "c", "bad", "-o", "x.h").status == 3
    assert listing(Path()) == ["a.bpfseal", "bad"]


def test_json_needs_stdout_for_itself(cli: Cli, signed: str) -> None:
    assert cli("skeleton", "c", signed, "--json").status == 2
    assert cli("skeleton", "rust", signed).status == 2


def test_a_bundle_may_come_from_stdin(signed: str) -> None:
    done = run_process("skeleton", "c", "-", data=Path(signed).read_bytes())
    assert done.returncode == 0
    assert done.stdout.startswith(b"/* exectrace_bpf: made by bpfseal ")
