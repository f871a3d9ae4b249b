"""What the command line leaves on the host when it fails, is interrupted, or runs twice at once."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from bpfseal.bundle.store import read_bundle

from .support import OBJECT, Cli, Keys, listing

COMMAND = (sys.executable, "-m", "bpfseal")
PAIR = ["cert.der", "cert.pem", "key.pem"]
SEED = 20261129


def start(*arguments: str | Path, **options: object) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def is_pair(folder: Path) -> bool:
    """Whether key and both certificates belong together."""
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    pem = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    der = x509.load_der_x509_certificate((folder / "cert.der").read_bytes())
    return pem == der and key.public_key() == pem.public_key()


# keygen


def test_of_many_at_once_one_makes_the_pair() -> None:
    runs = [start("keygen", "--type", "p256", "--out", "keys") for _ in range(6)]
    ends = sorted((run.communicate()[1], run.returncode)[1] for run in runs)
    assert ends == [0, 2, 2, 2, 2, 2]
    assert listing(Path("keys")) == PAIR
    assert is_pair(Path("keys"))


def test_of_many_at_once_that_replace_a_pair_the_last_one_leaves_its_own(cli: Cli) -> None:
    assert cli("keygen", "--type", "p256", "--out", "keys").status == 0
    for _ in range(3):
        runs = [start("keygen", "--type", "p256", "--out", "keys", "--force") for _ in range(6)]
        assert {(run.communicate()[1], run.returncode)[1] for run in runs} == {0}
        assert listing(Path("keys")) == PAIR
        assert is_pair(Path("keys"))


def test_a_replaced_key_is_its_owners_alone(cli: Cli) -> None:
    assert cli("keygen", "--type", "p256").status == 0
    Path("key.pem").chmod(0o644)
    Path("cert.pem").chmod(0o640)
    assert cli("keygen", "--type", "p256", "--force").status == 0
    assert stat.S_IMODE(Path("key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(Path("cert.pem").stat().st_mode) == 0o640


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced_by_a_key(cli: Cli, make: object) -> None:
    assert callable(make)
    make("key.pem")
    done = cli("keygen", "--type", "p256", "--force")
    assert done.status == 2
    assert "key.pem: is no file" in done.err
    assert listing(Path()) == ["key.pem"]


def test_a_pair_that_cannot_be_written_whole_is_not_written(cli: Cli) -> None:
    if os.geteuid():
        pytest.skip("NOT TESTED: a full disk (needs root, to mount a tmpfs)")
    Path("small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "small"]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk (no tmpfs can be mounted)")
    try:
        done = cli("keygen", "--type", "p256", "--out", "small/keys")
        assert done.status == 4
        assert "No space left" in done.err
        assert listing(Path("small")) == []
    finally:
        subprocess.run(["umount", "small"], check=True)


# Keys that others can read


@pytest.mark.parametrize(
    ("mode", "said"), [(0o600, ""), (0o400, ""), (0o640, "its group"), (0o604, "everybody")]
)
def test_a_key_that_others_can_read_is_warned_about(
    cli: Cli, keys: Keys, mode: int, said: str
) -> None:
    shutil.copy(keys.private_key, "key.pem")
    Path("key.pem").chmod(mode)
    done = cli("sign", OBJECT, "--private-key", "key.pem", "--certificate", keys.certificate)
    assert done.status == 0
    found = re.findall(r"warning: key\.pem: (.*) has access to this private key", done.err)
    assert found == ([said] if said else [])


# Outputs


def test_a_layout_of_somebody_else_is_not_replaced(cli: Cli, keys: Keys) -> None:
    Path("images/blobs").mkdir(parents=True)
    Path("images/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    Path("images/blobs/thesis.tex").write_text("thesis")
    done = cli("sign", OBJECT, *keys.signing, "-o", "images")
    assert done.status == 2
    assert "images: holds something else than a bundle" in done.err
    assert Path("images/blobs/thesis.tex").read_text() == "thesis"


def test_a_slip_in_the_command_line_costs_neither_key_nor_object(cli: Cli, keys: Keys) -> None:
    shutil.copy(keys.private_key, "key.pem")
    shutil.copy(OBJECT, "tool.bpf.o")
    before = Path("key.pem").read_bytes(), Path("tool.bpf.o").read_bytes()
    assert cli("sign", OBJECT, *keys.signing, "-o", "key.pem").status == 2
    assert cli("build", OBJECT, "-o", "tool.bpf.o").status == 2
    assert cli("export", OBJECT, "--scheme", "kfunc", "--insns", "key.pem").status == 2
    assert (Path("key.pem").read_bytes(), Path("tool.bpf.o").read_bytes()) == before


@pytest.mark.parametrize("path", [300 * "x", f"{300 * 'x'}/", f"a/{300 * 'x'}/b", "a\0b", "a\0b/c"])
@pytest.mark.parametrize("verb", ["sign", "keygen", "prepare", "skeleton", "export"])
def test_a_path_that_cannot_be_is_named_in_the_message(
    cli: Cli, keys: Keys, verb: str, path: str
) -> None:
    options: dict[str, tuple[str | Path, ...]] = {
        "sign": (OBJECT, *keys.signing, "-o", path),
        "keygen": ("--type", "p256", "--out", path),
        "prepare": (OBJECT, "--scheme", "kfunc", "-o", path),
        "skeleton": ("c", OBJECT, "--scheme", "unsigned", "-o", path),
        "export": (OBJECT, "--scheme", "kfunc", "--insns", path),
    }
    done = cli(verb, *options[verb])
    assert done.status == 4
    assert re.search("x{200}|a.*b", done.err)
    assert len(done.err.splitlines()) == 1
    assert "stdout" not in done.err
    assert [path for path in Path().rglob("*") if path.is_file()] == []


# Signals


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_signal_ends_the_command_with_one_line(
    keys: Keys, number: signal.Signals, status: int
) -> None:
    os.mkfifo("object")  # it waits for an object that does not come
    run = start("sign", "object", *keys.signing, "-o", "new/")
    with Path("object").open("wb"):
        time.sleep(0.1)
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == status
    assert errors.decode() in ("bpfseal: interrupted\n", f"bpfseal: ended by {number.name}\n")
    assert listing(Path()) == ["object"]


def test_a_signal_that_is_ignored_stays_ignored(keys: Keys) -> None:
    code = "import os,signal,sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    os.mkfifo("object")
    command = [sys.executable, "-c", code, *COMMAND, "sign", "object", *map(str, keys.signing)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE)
    with Path("object").open("wb") as pipe:
        time.sleep(0.1)
        run.send_signal(signal.SIGHUP)
        pipe.write(OBJECT.read_bytes())
    run.communicate(timeout=60)
    assert run.returncode == 0


def rest_of_group(group: int) -> list[str]:
    """Return the processes of a group that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == str(group) and fields[0] != "Z":
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize("to_all", [True, False], ids=["the group", "the first process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_signing_by_many_processes_that_is_ended_leaves_whole_bundles(
    keys: Keys, number: signal.Signals, *, to_all: bool
) -> None:
    chance = random.Random(SEED + number + to_all)  # noqa: S311 - moments, no secrets
    names = [f"{count:02}.bpf.o" for count in range(40)]
    for name in names:
        shutil.copy(OBJECT, name)
    for delay in (chance.uniform(0.1, 3.0) for _ in range(3)):
        run = start(
            "sign", *names, *keys.signing, "-o", "new", "--jobs", "3", start_new_session=True
        )
        time.sleep(delay)
        (os.killpg if to_all else os.kill)(run.pid, number)
        _, errors = run.communicate(timeout=60)
        assert run.returncode in (0, 128 + number, -number), errors.decode()
        assert b"internal error" not in errors
        end = time.monotonic() + 30
        while rest_of_group(run.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert rest_of_group(run.pid) == []
        for path in Path("new").iterdir() if Path("new").exists() else ():
            assert path.suffix == ".bpfseal"
            read_bundle(path)
        shutil.rmtree("new", ignore_errors=True)
        assert listing(Path()) == names


def test_workers_end_when_the_first_process_is_killed(keys: Keys) -> None:
    names = [f"{count:03}.bpf.o" for count in range(300)]
    for name in names:
        Path(name).symlink_to(OBJECT)
    run = start("sign", *names, *keys.signing, "-o", "new", "--jobs", "2", start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (Path("new").exists() and len(listing(Path("new"))) > 4):
        time.sleep(0.02)
    run.kill()
    run.communicate()
    while rest_of_group(run.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert rest_of_group(run.pid) == []
    assert {path.suffix for path in Path("new").iterdir()} == {".bpfseal"}


def test_a_worker_that_is_killed_is_no_bug_of_ours(keys: Keys) -> None:
    names = [f"{count:03}.bpf.o" for count in range(200)]
    for name in names:
        Path(name).symlink_to(OBJECT)
    run = start("sign", *names, *keys.signing, "-o", "new", "--jobs", "2", start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not (Path("new").exists() and len(listing(Path("new"))) > 4):
        time.sleep(0.02)
    workers = [pid for pid in rest_of_group(run.pid) if "forkserver" in command_of(pid)]
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 4
    assert b"the process that worked on it was killed" in errors
    assert b"internal error" not in errors


def command_of(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
