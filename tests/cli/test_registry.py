"""``push`` and ``pull`` on the command line, with a registry on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("oras", reason="the extra bpfseal[oci] is not installed")

from bpfseal.bundle import transport
from bpfseal.bundle.store import read_bundle
from support.registry import Registry, cut_after, free_port, proxied, running

from .support import OBJECT, Cli, Keys, listing, run_process

PLAIN_NOTE = "bpfseal: push: --plain-http from BPFSEAL_PLAIN_HTTP\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running(tmp_path_factory.mktemp("registry"), storage={"inmemory": {}}) as started:
        yield started


@pytest.fixture(autouse=True)
def plain_http(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BPFSEAL_PLAIN_HTTP", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(transport, "PAUSE", 0.0)


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> Path:
    assert cli("sign", OBJECT, *keys.signing).status == 0
    return Path("exectrace.bpfseal")


def test_a_bundle_comes_back_byte_for_byte(cli: Cli, registry: Registry, signed: Path) -> None:
    reference = f"{registry.host}/tools/exectrace:1.0"
    pushed = cli("push", signed, reference)
    assert pushed.status == 0
    assert pushed.out.startswith(
        f"{reference}: pushed, kfunc, inline-original, inline, loadtime, sha256:"
    )
    pulled = cli("pull", reference, "-o", "copy")
    assert pulled.status == 0
    assert pulled.out.startswith("copy: pulled, kfunc, ")
    assert Path("copy").read_bytes() == signed.read_bytes()


def test_a_bundle_can_be_named_by_the_digest_that_push_prints(
    cli: Cli, registry: Registry, signed: Path
) -> None:
    pushed = cli("push", signed, f"{registry.host}/exectrace", "--json").document
    (result,) = pushed["results"]
    assert result["reference"] == f"{registry.host}/exectrace:latest"
    reference = f"{registry.host}/exectrace@{result['digest']}"
    (pulled,) = cli("pull", reference, "--json", "-o", "copy").document["results"]
    assert pulled["digest"] == result["digest"]
    assert Path("copy").read_bytes() == signed.read_bytes()


def test_a_pulled_bundle_is_named_after_its_repository(
    cli: Cli, registry: Registry, signed: Path
) -> None:
    cli("push", signed, f"{registry.host}/tools/who")
    assert cli("pull", f"{registry.host}/tools/who").status == 0
    assert cli("pull", f"{registry.host}/tools/who", "-o", "unpacked", "--unpacked").status == 0
    assert listing(Path()) == ["exectrace.bpfseal", "unpacked", "who.bpfseal"]
    assert read_bundle(Path("unpacked")) == read_bundle(signed)


def test_a_bundle_directory_and_a_pipe_can_be_pushed(
    cli: Cli, registry: Registry, signed: Path
) -> None:
    reference = f"{registry.host}/piped:1"
    done = run_process("push", "-", reference, data=signed.read_bytes())
    assert (done.returncode, done.stderr) == (0, PLAIN_NOTE.encode())
    done = run_process("pull", reference, "-o", "-")
    assert done.stdout == signed.read_bytes()
    assert cli("pull", reference, "-o", "folder/", "--unpacked").status == 0
    assert cli("push", "folder/piped.bpfseal", f"{registry.host}/piped:2").status == 0
    assert run_process("pull", f"{registry.host}/piped:2", "-o", "-").stdout == done.stdout


def test_what_is_no_bundle_is_not_pushed(cli: Cli, registry: Registry) -> None:
    Path("junk").write_bytes(b"junk")
    done = cli("push", "junk", f"{registry.host}/junk")
    assert done.status == 3
    assert done.err == (
        "bpfseal: push: junk: not a file that bpfseal reads "
        "(it reads objects (.bpf.o), bundles and C light skeletons (.lskel.h))\n"
    )
    assert cli("push", OBJECT, f"{registry.host}/junk").status == 3


def test_a_bundle_that_is_not_there_is_status_3(cli: Cli, registry: Registry) -> None:
    done = cli("pull", f"{registry.host}/missing:1")
    assert done.status == 3
    assert done.err == (f"bpfseal: pull: {registry.host}/missing:1: not found in the registry\n")
    assert listing(Path()) == []


def test_a_registry_that_is_not_there_is_status_4(cli: Cli, signed: Path) -> None:
    reference = f"127.0.0.1:{free_port()}/tool:1"
    for arguments in (("push", signed, reference), ("pull", reference, "-o", "x")):
        done = cli(*arguments)
        assert done.status == 4
        assert done.err.count("\n") == 1
        assert "Connection refused" in done.err


def test_a_pull_that_breaks_off_leaves_the_old_file(
    cli: Cli, registry: Registry, signed: Path
) -> None:
    cli("push", signed, f"{registry.host}/broken:1")
    Path("old").write_bytes(b"old")
    before = listing(Path())
    with proxied(registry, to_client=cut_after(5000)) as proxy:
        assert cli("pull", f"{proxy.host}/broken:1", "-o", "old").status == 4
    assert Path("old").read_bytes() == b"old"
    assert listing(Path()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "x", "tool:1"),
        ("push", "x", f"localhost/tool@sha256:{64 * 'a'}"),
        ("pull", "tool"),
        ("pull", "localhost/tool", "--username", "me"),
        ("pull", "localhost/tool", "--password-env", "HOME"),
        ("pull", "localhost/tool", "--password-env", "HOME", "--password-file", "x"),
        ("pull", "localhost/tool", "--username", "me", "--password-env", "NO_SUCH_VARIABLE"),
        ("pull", "registry.example.org/tool", "--username", "me", "--password-env", "HOME"),
        ("pull", "localhost/tool", "--timeout", "0"),
        ("pull", "localhost/tool", "-o", "-", "--json"),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_usage_errors(
    cli: Cli, signed: Path, arguments: tuple[str, ...]
) -> None:
    given = [signed if argument == "x" else argument for argument in arguments]
    done = cli(*given)
    assert done.status == 2
    assert done.err.count("\n") == 1
