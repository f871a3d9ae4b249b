"""What is written is written as a whole, and replaces nothing that the same run has read."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bpfseal.bundle.store import read_bundle

from .support import OBJECT, Cli, Keys, run_process

UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def bundle(cli: Cli, keys: Keys) -> Path:
    """A signed bundle in the current directory."""
    assert cli("sign", OBJECT, *keys.signing, "-o", "a.bpfseal").status == 0
    return Path("a.bpfseal")


# stdout takes all of it, or the status says so


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffer", "none"])
@pytest.mark.parametrize(
    "verb", [("skeleton", "c", "a.bpfseal"), ("export", "a.bpfseal", "--scheme", "kfunc", "--data")]
)
def test_a_file_that_becomes_full_is_an_error(
    bundle: Path, verb: tuple[str, ...], variables: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "bpfseal", *verb, *(("-",) if verb[-1] == "--data" else ())]
    with Path("full").open("wb") as out:
        done = subprocess.run(
            command,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, **variables},
            preexec_fn=_small_files,
        )
    assert done.returncode == 4
    assert done.stderr.startswith(b"bpfseal: stdout: cannot be written: ")
    assert done.stderr.count(b"\n") == 1
    assert bundle.is_file()


def test_lines_are_written_as_a_whole_without_a_buffer_too(bundle: Path) -> None:
    arguments = (f"inspect {bundle} --json").split()
    usual = run_process(*arguments)
    unbuffered = run_process(*arguments, env=UNBUFFERED)
    assert (unbuffered.stdout, unbuffered.returncode) == (usual.stdout, 0)


@pytest.mark.parametrize("arguments", [("--help",), ("sign", "--help"), ("--version",)])
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffer", "none"])
def test_help_that_is_not_printed_is_an_error(
    arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bpfseal", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, **variables},
        )
    assert done.returncode == 4
    assert done.stderr == b"bpfseal: stdout: cannot be written: No space left on device\n"


# No output replaces an input


def _named(path: str) -> str:
    return path


def _symbolic(path: str) -> str:
    Path("link").symlink_to(path)
    return "link"


def _hard(path: str) -> str:
    Path("hard").hardlink_to(path)
    return "hard"


def _other_spelling(path: str) -> str:
    return f"{Path.cwd()}/./{path}"


@pytest.mark.parametrize("name", [_named, _symbolic, _hard, _other_spelling])
@pytest.mark.parametrize(
    "which", ["key.der", "bag.pem", "cert.der", "pass", "mine.toml", "cert.pem"]
)
def test_sign_does_not_replace_what_it_was_given(
    cli: Cli, keys: Keys, which: str, name: Callable[[str], str]
) -> None:
    key, certificate = "key.der", "cert.der"
    subprocess.run(
        ["openssl", "pkey", "-in", keys.private_key, "-outform", "DER", "-out", key], check=True
    )
    Path("bag.pem").write_bytes(b"Bag Attributes\n" + keys.private_key.read_bytes())
    shutil.copy(keys.folder / "cert.der", certificate)
    Path("cert.pem").write_bytes(b"subject=x\n" + keys.certificate.read_bytes())
    Path("mine.toml").write_text("[sign]\nhash = 'sha256'\n")
    Path("pass").write_text("hunter2\n")
    options = ["--private-key", key, "--certificate", certificate, "--config", "mine.toml"]
    if which == "bag.pem":
        options[1] = which
    if which == "cert.pem":
        options[3] = which
    if which == "pass":
        assert (
            cli("keygen", "--type", "p256", "--out", "ek", "--passphrase-file", which).status == 0
        )
        options = ["--private-key", "ek/key.pem", "--certificate", "ek/cert.pem"]
        options += ["--passphrase-file", which]
    before = Path(which).read_bytes()
    done = cli("sign", OBJECT, *options, "-o", name(which))
    assert done.status == 2
    assert done.err.endswith("is an input, which is not replaced (name another file)\n")
    assert Path(which).read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        "export a.bpfseal --scheme kfunc --insns a.bpfseal",
        "export a.bpfseal --scheme kfunc --data new --insns a.bpfseal",
        "skeleton c a.bpfseal -o a.bpfseal",
        "skeleton python a.bpfseal -o a.bpfseal",
        "prepare a.bpfseal --scheme kfunc -o a.bpfseal",
    ],
)
def test_a_bundle_is_not_replaced_by_something_else(cli: Cli, bundle: Path, arguments: str) -> None:
    before = bundle.read_bytes()
    assert cli(*arguments.split()).status == 2
    assert bundle.read_bytes() == before
    assert not Path("new").exists()


def test_nothing_is_put_into_a_bundle_directory_that_is_read(cli: Cli, keys: Keys) -> None:
    assert cli("sign", OBJECT, *keys.signing, "--unpacked", "-o", "dir").status == 0
    for arguments in (
        "prepare dir --scheme kfunc -o dir",
        "export dir --scheme kfunc --insns dir/index.json",
        "skeleton c dir -o dir/x.h",
    ):
        assert cli(*arguments.split()).status == 2
        assert read_bundle(Path("dir"))


def test_stdin_is_an_input_as_well(bundle: Path) -> None:
    before = bundle.read_bytes()
    with bundle.open("rb") as stdin:
        done = subprocess.run(
            [sys.executable, "-m", "bpfseal", "skeleton", "c", "-", "-o", bundle],
            stdin=stdin,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 2
    assert bundle.read_bytes() == before


def test_stdout_that_leads_to_an_input_is_refused(bundle: Path) -> None:
    before = bundle.read_bytes()
    with bundle.open("ab") as out:
        command = [sys.executable, "-m", "bpfseal", "skeleton", "c", str(bundle)]
        assert subprocess.run(command, stdout=out, check=False).returncode == 2
    assert bundle.read_bytes() == before


@pytest.mark.parametrize("unpacked", [False, True])
def test_sign_signs_a_bundle_in_place(cli: Cli, keys: Keys, *, unpacked: bool) -> None:
    assert cli("build", OBJECT, "-o", "b", *(["--unpacked"] if unpacked else [])).status == 0
    assert cli("sign", "b", *keys.signing, "-o", "b").status == 0
    assert all(variant.signatures for variant in read_bundle(Path("b")).variants)


def test_no_input_of_a_batch_is_replaced_before_it_is_read(
    cli: Cli, keys: Keys, bundle: Path
) -> None:
    shutil.copy(OBJECT, "b.bpf.o")
    Path("sub").mkdir()
    bundle.rename("sub/c.bpfseal")
    Path("b.bpfseal").symlink_to("sub/c.bpfseal")
    before = Path("sub/c.bpfseal").read_bytes()
    for jobs in ("1", "2"):
        done = cli("sign", "b.bpf.o", "sub/c.bpfseal", *keys.signing, "--jobs", jobs)
        assert done.status == 2
        assert Path("sub/c.bpfseal").read_bytes() == before


def test_workers_know_what_the_first_process_has_read(cli: Cli, keys: Keys) -> None:
    for name in ("x", "y", "z"):
        shutil.copy(OBJECT, f"{name}.bpf.o")
    shutil.copy(keys.folder / "cert.der", "cert.der")
    Path("z.bpfseal").symlink_to("cert.der")
    before = Path("cert.der").read_bytes()
    key = ("--private-key", keys.private_key, "--certificate", "cert.der")
    assert cli("sign", "x.bpf.o", "y.bpf.o", "z.bpf.o", *key, "--jobs", "2").status == 2
    assert Path("cert.der").read_bytes() == before


# stdout by another name, and one file by two names


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
@pytest.mark.parametrize("verb", [("build", OBJECT), ("prepare", OBJECT, "--scheme", "kfunc")])
def test_stdout_by_its_path_gets_nothing_but_the_output(
    verb: tuple[str | Path, ...], name: str
) -> None:
    by_path = run_process(*verb, "-o", name)
    assert by_path.returncode == 0
    assert by_path.stdout == run_process(*verb, "-o", "-").stdout
    assert run_process(*verb, "-o", name, "--json").returncode == 2


@pytest.mark.parametrize("other", ["x", "./x", "link", "{cwd}/x", "../{folder}/x", "hard"])
def test_two_parts_do_not_go_into_one_file(cli: Cli, other: str) -> None:
    Path("x").write_bytes(b"old")
    Path("link").symlink_to("x")
    Path("hard").hardlink_to("x")
    name = other.format(cwd=Path.cwd(), folder=Path.cwd().name)
    done = cli("export", OBJECT, "--scheme", "kfunc", "--insns", "x", "--data", name)
    assert done.status == 2
    assert Path("x").read_bytes() == b"old"


def test_two_parts_do_not_both_go_to_stdout() -> None:
    done = run_process(
        "export", OBJECT, "--scheme", "kfunc", "--insns", "-", "--data", "/dev/stdout"
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_file_descriptor_that_cannot_be_is_no_defect(cli: Cli) -> None:
    done = cli("build", OBJECT, "-o", f"/proc/self/fd/{'9' * 20}")
    assert done.status == 4
