"""A PIN is never printed, whatever is wrong with the URI or the option that holds it."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from bpfseal.cli.secrets import Redactor, redacted

from .support import OBJECT, Cli, Keys

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
