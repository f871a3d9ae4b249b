"""``sign`` with keys of all kinds, and ``prepare`` and ``attach`` for those that are elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import softhsm

from .support import OBJECT, Cli, Keys, listing, make_keys, run_process

SIGN = ("sign", OBJECT, "--scheme", "kfunc", "-o", "out")


@pytest.fixture(scope="module")
def rsa_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("rsa"), "--type", "rsa2048")


@pytest.fixture(scope="module")
def locked_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "passphrase").write_text("open sesame\n")
    return make_keys(folder, "--passphrase-file", folder / "passphrase")


@pytest.fixture
def pin_file(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(f"{softhsm.PIN}\n")
    return path


# Passphrases


def on_terminal(answer: bytes, *arguments: str | Path) -> tuple[int, bytes]:
    """Run the command line as the leader of a session with a terminal, and type the answer."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bpfseal", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(slave)
        shown = b"".join(_typed(master, answer))
    os.close(master)
    return process.returncode, shown


def _typed(master: int, answer: bytes) -> Iterator[bytes]:
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other side is closed
            return
        shown += part
        yield part
        if shown.endswith(b": ") and answer:
            time.sleep(0.1)  # getpass throws away what is typed before it turns the echo off
            os.write(master, answer)
            answer = b""


def test_a_passphrase_is_asked_for_on_a_terminal(cli: Cli, locked_keys: Keys) -> None:
    status, shown = on_terminal(b"open sesame\n", *SIGN, *locked_keys.signing)
    assert status == 0, shown
    assert f"Passphrase for {locked_keys.private_key}: ".encode() in shown
    assert b"sesame" not in shown
    assert cli("verify", "out", "--certificate", locked_keys.certificate).status == 0


def test_a_wrong_passphrase_from_the_terminal_is_bad_input(locked_keys: Keys) -> None:
    status, shown = on_terminal(b"guess\n", *SIGN, *locked_keys.signing)
    assert status == 3
    assert b"wrong passphrase" in shown


def test_a_key_that_is_not_encrypted_is_not_asked_about(keys: Keys) -> None:
    status, shown = on_terminal(b"", *SIGN, *keys.signing)
    assert status == 0
    assert b"Passphrase" not in shown


def test_without_a_terminal_nobody_is_asked(locked_keys: Keys) -> None:
    done = run_process(*SIGN, *locked_keys.signing, start_new_session=True, timeout=30)
    assert done.returncode == 3
    assert b"the private key is encrypted (give its passphrase with --passphrase-file)" in (
        done.stderr
    )


def test_a_certificate_is_needed_with_a_file(cli: Cli, keys: Keys) -> None:
    done = cli(*SIGN, "--private-key", keys.private_key)
    assert done.status == 2
    assert "--certificate is needed" in done.err


# Tokens


def test_a_key_on_a_token_signs(cli: Cli, pin_file: Path) -> None:
    uri = softhsm.uri("token=release;object=rsa2048")
    done = cli(*SIGN, "--private-key", uri, "--pin-file", pin_file)
    assert (done.status, done.err) == (0, "")
    pair = softhsm.pair("rsa2048")
    Path("key.pem").write_bytes(pair.private_key_pem)
    Path("cert.pem").write_bytes(pair.certificate_pem)
    files = ("--private-key", "key.pem", "--certificate", "cert.pem")
    cli("sign", OBJECT, "--scheme", "kfunc", "-o", "of-file", *files)
    assert Path("out").read_bytes() == Path("of-file").read_bytes()


@pytest.mark.parametrize("query", ["&pin-value=1234", "&pin-source=file:{}"])
def test_the_uri_may_say_where_the_pin_is(cli: Cli, pin_file: Path, query: str) -> None:
    uri = softhsm.uri("token=release;object=p256", query.format(pin_file))
    assert cli(*SIGN, "--private-key", uri).status == 0


def test_the_pin_may_be_in_a_variable(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PIN", softhsm.PIN)
    uri = softhsm.uri("token=release;object=p256")
    assert cli(*SIGN, "--private-key", uri, "--pin-env", "MY_PIN").status == 0


def test_systemds_name_of_the_source_is_taken(cli: Cli, pin_file: Path) -> None:
    uri = softhsm.uri("token=release;object=p256")
    source = ("--private-key-source", "provider:pkcs11")
    assert cli(*SIGN, "--private-key", uri, *source, "--pin-file", pin_file).status == 0


def test_a_session_stays_in_one_process_whatever_jobs_says(cli: Cli, pin_file: Path) -> None:
    Path("other.bpf.o").write_bytes(OBJECT.read_bytes())
    uri = softhsm.uri("token=release;object=p256")
    options = ("--private-key", uri, "--pin-file", pin_file, "--jobs", "4", "-o", "signed/")
    done = cli("sign", OBJECT, "other.bpf.o", "--scheme", "kfunc", *options)
    assert done.status == 0
    assert "belongs to one process" in done.err
    assert listing(Path("signed")) == ["exectrace.bpfseal", "other.bpfseal"]


@pytest.mark.parametrize(
    ("path", "pin", "status", "message"),
    [
        ("token=release;object=p256", "9999", 3, "wrong PIN for token release"),
        ("token=release;object=p256", None, 2, "token release wants a PIN"),
        ("token=lost;object=p256", softhsm.PIN, 4, "no token fits pkcs11:token=lost"),
        ("token=release;object=lost", softhsm.PIN, 4, "has no private key that fits"),
        ("token=release;object=twin", softhsm.PIN, 2, "several private keys that fit"),
        ("token=release;object=p384", softhsm.PIN, 2, "--certificate FILE"),
        ("token=release;id=%05", softhsm.PIN, 3, "does not belong to certificate"),
        ("token=release;token=x", softhsm.PIN, 2, "token is there twice"),
    ],
)
def test_what_goes_wrong_with_a_token_is_one_line(
    cli: Cli, path: str, pin: str | None, status: int, message: str
) -> None:
    uri = softhsm.uri(path, "" if pin is None else f"&pin-value={pin}")
    done = cli(*SIGN, "--private-key", uri)
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
    assert message in done.err
    assert "pin-value" not in done.err
    assert listing(Path()) == []


def test_a_missing_library_is_status_4(cli: Cli) -> None:
    softhsm.module()
    done = cli(*SIGN, "--private-key", "pkcs11:object=a?module-path=/nowhere.so")
    assert (done.status, done.err.count("\n")) == (4, 1)
    assert "/nowhere.so: PKCS #11 library cannot be used" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ("--private-key", "key.pem", "--private-key-source", "provider:pkcs11"),
        ("--private-key", "key.pem", "--certificate", "c", "--pin-env", "A"),
        ("--private-key", "pkcs11:object=a", "--passphrase-env", "A"),
        ("--private-key", "pkcs11:object=a", "--private-key-source", "engine:pkcs11"),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(
    cli: Cli, options: tuple[str, ...]
) -> None:
    assert cli(*SIGN, *options).status == 2


def test_a_file_may_be_named_like_a_uri_if_the_source_says_so(cli: Cli, keys: Keys) -> None:
    Path("pkcs11:x").write_bytes(keys.private_key.read_bytes())
    options = ("--private-key", "pkcs11:x", "--private-key-source", "file")
    assert cli(*SIGN, *options, "--certificate", keys.certificate).status == 0


# prepare and attach


def openssl(command: str, folder: Path) -> None:
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_recipe_in_the_description_leads_to_the_bundle_that_sign_writes(
    cli: Cli, rsa_keys: Keys
) -> None:
    cli("build", OBJECT, "-o", "in")
    assert cli("prepare", "in", "--scheme", "loadtime", "-o", "to-sign/").status == 0
    folder = Path("to-sign")
    name = "in.loadtime.payload"
    assert listing(folder) == [name, f"{name}.digest", f"{name}.json"]
    description = json.loads((folder / f"{name}.json").read_text())
    for file in (rsa_keys.private_key, rsa_keys.certificate):
        (folder / file.name).write_bytes(file.read_bytes())
    openssl(description["commands"]["cms"], folder)
    openssl(description["commands"]["raw-of-digest"], folder)
    cli("sign", "in", "--scheme", "loadtime", *rsa_keys.signing, "-o", "expected")
    options = ("--scheme", "loadtime", "--certificate", rsa_keys.certificate, "-o", "signed")
    for suffix in ("cms", "sig"):
        done = cli("attach", "in", "--signature", folder / f"{name}.{suffix}", *options)
        assert (done.status, done.err) == (0, "")
        assert Path("signed").read_bytes() == Path("expected").read_bytes()


def test_every_scheme_is_prepared_by_default(cli: Cli) -> None:
    results = cli("prepare", OBJECT, "--json").document["results"]
    assert {result["scheme"] for result in results} == {
        "kfunc",
        "inline",
        "inline-original",
        "loadtime",
    }
    for result in results:
        assert Path(result["output"]).stat().st_size == result["size"]
        assert Path(result["digest_file"]).read_bytes().hex() == result["digest"]


def test_the_payload_may_have_a_name_or_go_to_stdout(cli: Cli) -> None:
    assert cli("prepare", OBJECT, "--scheme", "inline", "-o", "payload").status == 0
    assert listing(Path()) == ["payload", "payload.digest", "payload.json"]
    done = run_process("prepare", OBJECT, "--scheme", "inline", "-o", "-")
    assert done.stdout == Path("payload").read_bytes()
    assert run_process("prepare", OBJECT, "-o", "-").returncode == 2
    assert run_process("prepare", OBJECT, "--json", "--scheme", "inline", "-o", "-").returncode == 2


def test_preparing_twice_writes_the_same(cli: Cli) -> None:
    cli("prepare", OBJECT, "-o", "a/")
    cli("prepare", OBJECT, "-o", "b/")
    for path in Path("a").iterdir():
        assert path.read_bytes() == (Path("b") / path.name).read_bytes()


def test_a_signature_that_does_not_verify_writes_nothing(cli: Cli, rsa_keys: Keys) -> None:
    Path("sig").write_bytes(bytes(256))
    options = ("--scheme", "kfunc", "--signature", "sig", "--certificate", rsa_keys.certificate)
    done = cli("attach", OBJECT, *options)
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("bpfseal: attach: sig: -EKEYREJECTED")
    assert listing(Path()) == ["sig"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--certificate", "cert"), 2),
        (("--signature", "sig"), 2),
        (("--signature", "-", "--certificate", "-"), 2),
        (("--signature", "sig", "--certificate", "cert", "--format", "pem"), 2),
        (("--signature", "missing", "--certificate", "cert", "--scheme", "kfunc"), 3),
        (("--signature", "sig", "--certificate", "cert"), 2),
        (("--signature", "sig", "--certificate", "cert", "--scheme", "kfunc"), 3),
    ],
)
def test_attach_says_what_is_wrong(
    cli: Cli, rsa_keys: Keys, options: tuple[str, ...], status: int
) -> None:
    Path("cert").write_bytes(rsa_keys.certificate.read_bytes())
    Path("sig").write_bytes(b"junk")
    done = cli("attach", OBJECT, *options)
    assert (done.status, done.err.count("\n")) == (status, 1)


def test_ml_dsa_keys_are_made_and_sign_with_a_warning(cli: Cli) -> None:
    done = cli("keygen", "--type", "mldsa44", "--out", "keys")
    if done.status == 4:
        pytest.skip("the installed cryptography has no ML-DSA")
    keys = Keys(Path("keys"))
    signed = cli("sign", OBJECT, "--scheme", "loadtime", *keys.signing, "-o", "out", "--json")
    assert signed.document["results"][0]["hash"] == "sha512"
    assert "kernels up to 7.3 have no ML-DSA" in signed.err
    assert cli("verify", "out", "--certificate", keys.certificate).status == 0
