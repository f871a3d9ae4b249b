"""A PIN is never printed, whatever is wrong with the URI or the option that holds it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from bpfseal.cli.secrets import Redactor, redacted

from .support import OBJECT, Cli, Done, Keys

PIN = "86420"

URIS = [
    f"pkcs11:token=a?pin-value={PIN}",
    f"Pkcs11:token=a?pin-value={PIN}",
    f"PKCS11:token=a?PIN-VALUE={PIN}",
    f"pkcs11:token=a?pin%2Dvalue={PIN}",
    f"pkcs11:token=a?p%69n-val%75e%3D{PIN}",
    f"pkcs11:token=a;pin-value={PIN}",
    f"pkcs11:pin-value={PIN}?pin-value={PIN}&pin-value={PIN}",
    f"pkcs11:token=a?module-path=/nowhere.so&pin-value={PIN}",
    f"pkcs11:token=a?pin-value={PIN} with blanks {PIN}",
    f"pkcs11:token=a?pin-value='{PIN}\"{PIN}",
    f"pkcs11:token=a?pin-value={PIN}\n{PIN}",
    f"pkcs11:token=a?pin-source=/x&pin-value={PIN}",
    f" pkcs11:token=a?pin-value={PIN}",
    f"file:pkcs11:token=a?pin-value={PIN}",
]


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize(
    "before",
    [
        ("sign", OBJECT, "--private-key"),
        ("sign", OBJECT, "--private-key-source", "file", "--private-key"),
        ("sign", OBJECT, "--private-key-source", "provider:pkcs11", "--private-key"),
        ("sign", OBJECT, "--private-key-source"),
        ("sign",),
        ("verify", OBJECT, "--certificate"),
        ("inspect",),
        ("inspect", OBJECT, "--config"),
        ("keygen", "--passphrase-env"),
        ("keygen", "--type"),
        (),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] or "a verb",
)
def test_no_message_has_the_pin(
    cli: Cli, keys: Keys, uri: str, before: tuple[str | Path, ...]
) -> None:
    rest = ("--certificate", keys.certificate) if before[:1] == ("sign",) else ()
    for extra in ((), ("--debug", "-v"), ("--json",)):
        done = cli(*before, uri, *rest, *extra)
        assert done.status in (1, 2, 3, 4)
        assert PIN not in done.out + done.err


@pytest.mark.parametrize("variable", ["PRIVATE_KEY", "CERTIFICATE", "HASH", "JOBS", "CONFIG"])
def test_no_message_about_a_variable_has_the_pin(
    cli: Cli, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BPFSEAL_{variable}", URIS[0])
    done = cli("sign", OBJECT, "--debug")
    assert done.status in (2, 3, 4)
    assert PIN not in done.out + done.err


def test_no_message_about_a_file_has_the_pin(cli: Cli) -> None:
    for key in ("private-key", "hash", f'"{URIS[0]}"'):
        Path("mine.toml").write_text(f"[sign]\n{key} = '{URIS[0]}'\n")
        done = cli("sign", OBJECT, "--config", "mine.toml", "--debug")
        assert done.status in (2, 3, 4)
        assert PIN not in done.out + done.err


def test_what_is_no_pin_stays() -> None:
    text = "a 100% sure spin-values=3, the PIN of token x; pin-valued"
    assert redacted(text) == text.replace("pin-values=3", "pin-values=3")
    redact = Redactor()
    redact.watch(["x?pin-value=ab cd&module-name=m"])
    assert redact("x?pin-value=ab cd&module-name=m: wrong") == "x?***&module-name=m: wrong"
    assert redact.document({"a": ["pin-value=1", 2, None]}) == {"a": ["***", 2, None]}


ODD = "12 34//TAIL/../x"
"""A PIN with what a path loses, and with blanks."""


def _lost(done: Done) -> bool:
    printed = done.out + done.err
    return not any(part in printed for part in ("12 34", "34/", "TAIL", "hunter2"))


@pytest.mark.parametrize("extra", [(), ("--debug", "-v"), ("--json",)])
@pytest.mark.parametrize(
    "before",
    [("verify", OBJECT, "--certificate"), ("inspect",), ("build", OBJECT, "-o")],
    ids=lambda value: str(value[-1])[:20],
)
def test_no_message_has_the_pin_as_a_part_of_a_path(
    cli: Cli, before: tuple[str | Path, ...], extra: tuple[str, ...]
) -> None:
    done = cli(*before, f"pkcs11:token=a?pin-value={ODD}", *extra)
    assert _lost(done)


@pytest.mark.parametrize("extra", [(), ("--debug", "-v"), ("--json",)])
@pytest.mark.parametrize(
    "text",
    [
        '[sign]\n"{uri}" = 1\n',
        '"{uri}" = 1\n',
        '["{uri}"]\na = 1\n',
        '[sign]\n"{filler}{uri}" = 1\n',
        '[sign]\nhash = "{uri}"\n',
        '[sign]\nhash = "{filler}{uri}"\n',
        '[sign]\ncertificate = ["{uri}"]\n',
        '[sign]\nprivate-key = "{uri}"\n',
        '[verify]\ncertificate = ["{uri}"]\n',
    ],
)
def test_names_and_lists_of_a_file_have_no_pin_in_messages(
    cli: Cli, text: str, extra: tuple[str, ...]
) -> None:
    uri = f"pkcs11:token=a?pin-value={ODD}"
    Path("mine.toml").write_text(text.format(uri=uri, filler="x" * 165))
    for verb in ("sign", "verify"):
        done = cli(verb, OBJECT, "--config", "mine.toml", *extra)
        assert done.status in (2, 3, 4)
        assert _lost(done)


@pytest.mark.parametrize("extra", [(), ("--debug", "-v"), ("--json",)])
@pytest.mark.parametrize(
    "given",
    [
        ("--passphrase-env", "hunter2"),
        ("--passphrase-file", "hunter2"),
        ("--passphrase-env=hunter2",),
        ("--passphrase", "hunter2"),
        ("--passphrase=hunter2",),
        ("--pin", "hunter2"),
        ("--secret", "hunter2"),
    ],
)
def test_a_secret_in_place_of_its_name_is_not_repeated(
    cli: Cli, given: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    done = cli("keygen", "--type", "p256", "--out", "keys", *given, *extra)
    assert done.status in (2, 3)
    assert given[0].partition("=")[0] in done.err
    assert _lost(done)


@pytest.mark.parametrize("name", ["--password-env", "--password-file"])
def test_a_password_in_place_of_its_name_is_not_repeated(cli: Cli, name: str) -> None:
    done = cli("pull", "localhost:1/x", "--username", "me", name, "hunter2", "--plain-http")
    assert done.status in (2, 3)
    assert _lost(done)


def test_what_is_unknown_and_no_secret_is_named(cli: Cli) -> None:
    assert "unrecognized arguments: --colour=red" in cli("keygen", "--colour=red").err


# prepare: commands for a shell


@pytest.mark.parametrize(
    "name", ["a b", "$(touch owned)", "`touch owned`", "a;touch owned", "-in", "a'b", "a\nb", "*"]
)
def test_commands_are_fit_for_a_shell(cli: Cli, keys: Keys, name: str) -> None:
    """What a name holds is a name, also if it begins like an option."""
    folder = Path("to-sign")
    folder.mkdir()
    done = cli("prepare", OBJECT, "--scheme", "kfunc", "-o", f"./to-sign/{name}", "--json")
    assert done.status == 0, done.err
    (result,) = done.document["results"]
    for file in (keys.private_key, keys.certificate):
        (folder / file.name).write_bytes(file.read_bytes())
    words = shlex.split(result["commands"]["raw"])
    assert words[-1].removeprefix("./") == name
    for kind in ("raw", "cms"):
        ran = subprocess.run(
            ["/bin/sh", "-c", result["commands"][kind]],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    assert not (folder / "owned").exists()
    assert (folder / f"{name}.sig").exists()
