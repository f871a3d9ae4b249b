"""The working directory has no say in trust, and who has one is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpfseal.cli.options import Options, Parser
from bpfseal.cli.verbs import VERBS, verb_module

from .support import MODEL, OBJECT, Cli, Keys, listing

LOCAL = {
    "keygen": {"type", "common-name"},
    "build": {"trace-loader", "page-size", "possible-cpus", "kernel-version", "unpacked"},
    "sign": {"jobs", "page-size", "possible-cpus", "kernel-version", "unpacked"},
    "prepare": {"page-size", "possible-cpus", "kernel-version"},
    "attach": {"format", "page-size", "possible-cpus", "kernel-version", "unpacked"},
    "verify": {"strict"},
    "load": {"hold", "success-audit", "trace"},
    "policy": {"strict", "success-audit"},
    "import": {"unpacked"},
    "push": {"timeout"},
    "pull": {"timeout", "unpacked"},
}
"""What `bpfseal.toml` in the current directory may set: presentation, sizes, strictness."""


def options_of(verb: str) -> Options:
    options = Options(Parser(prog=f"bpfseal {verb}"), verb)
    verb_module(verb).configure(options)
    return options


def folder_of(pair: Keys) -> Path:
    """Return a directory with the certificate alone."""
    folder = pair.folder / "trusted"
    folder.mkdir(exist_ok=True)
    (folder / "cert.pem").write_bytes(pair.certificate.read_bytes())
    return folder


@pytest.fixture
def signed(cli: Cli, keys: Keys) -> str:
    assert cli("sign", OBJECT, *keys.signing, "--scheme", "kfunc", "-o", "signed").status == 0
    return "signed"


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_that_the_current_directory_may_set_is_in_the_list(verb: str) -> None:
    assert options_of(verb).local_names() == LOCAL.get(verb, set())


@pytest.mark.parametrize(
    ("verb", "name"),
    [(verb, name) for verb in VERBS for name in sorted(options_of(verb).names())],
)
def test_an_option_about_trust_is_refused_from_the_current_directory(
    cli: Cli, verb: str, name: str
) -> None:
    Path("bpfseal.toml").write_text(f"[{verb}]\n{name} = 'x'\n")
    done = cli("inspect", OBJECT)  # whatever verb it is for
    if name in LOCAL.get(verb, ()):
        assert done.status == 0
        return
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"bpfseal.toml: [{verb}] {name} is not taken from the current directory" in done.err
    assert f"--{name}, BPFSEAL_{name.replace('-', '_').upper()}, or name the file" in done.err


def test_the_file_is_refused_even_if_the_command_line_wins(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str
) -> None:
    Path("bpfseal.toml").write_text(f"[verify]\ntrust = '{keys.folder}'\n")
    assert cli("verify", signed, "--certificate", other_keys.certificate).status == 2


def test_an_unsigned_load_cannot_be_asked_for_by_the_directory(cli: Cli) -> None:
    cli("build", OBJECT, "--scheme", "unsigned", "-o", "unsigned")
    Path("bpfseal.toml").write_text("[load]\nscheme = 'unsigned'\n")
    assert cli("load", *MODEL, "unsigned").status == 2


@pytest.mark.parametrize("how", ["--config", "BPFSEAL_CONFIG"])
def test_the_same_file_counts_once_somebody_names_it(
    cli: Cli, keys: Keys, signed: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bpfseal.toml").write_text(f"[verify]\ncertificate = '{keys.certificate}'\n")
    assert cli("verify", signed).status == 2
    arguments: tuple[str, ...] = ("--config", "bpfseal.toml")
    if how == "BPFSEAL_CONFIG":
        monkeypatch.setenv(how, "bpfseal.toml")
        arguments = ()
    done = cli("verify", signed, *arguments)
    assert done.status == 0
    assert done.err == "bpfseal: verify: --certificate from bpfseal.toml: [verify] certificate\n"
    document = cli("verify", signed, *arguments, "--json").document
    assert document["options_from"] == {"certificate": "bpfseal.toml: [verify] certificate"}


def test_what_comes_from_a_variable_is_said(
    cli: Cli, keys: Keys, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPFSEAL_TRUST", str(folder_of(keys)))
    done = cli("verify", signed, "--json")
    assert done.status == 0
    assert done.err == "bpfseal: verify: --trust from BPFSEAL_TRUST\n"
    assert done.document["options_from"] == {"trust": "BPFSEAL_TRUST"}


@pytest.mark.parametrize(
    ("variable", "value", "verb"),
    [
        ("BPFSEAL_NO_METADATA_CHECK", "1", "load"),
        ("BPFSEAL_KEYRING", "user", "load"),
        ("BPFSEAL_SCHEME", "unsigned", "load"),
        ("BPFSEAL_KERNEL", "model:7.3", "load"),
        ("BPFSEAL_SCHEME", "kfunc", "verify"),
        ("BPFSEAL_KERNEL", "7.3", "verify"),
    ],
)
def test_whatever_weakens_a_check_from_a_variable_is_said(
    cli: Cli, keys: Keys, signed: str, variable: str, value: str, verb: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = MODEL if verb == "load" and "KERNEL" not in variable else ()
    if value == "unsigned":
        cli("build", OBJECT, "--scheme", "unsigned", "-o", signed)
    monkeypatch.setenv(variable, value)
    document = cli(verb, signed, *options, "--certificate", keys.certificate, "--json").document
    name = variable.removeprefix("BPFSEAL_").replace("_", "-").lower()
    assert document["options_from"] == {name: variable}


def test_options_of_the_command_line_need_no_word(cli: Cli, keys: Keys, signed: str) -> None:
    done = cli("verify", signed, "--certificate", keys.certificate, "--json")
    assert (done.status, done.err) == (0, "")
    assert "options_from" not in done.document


# The command line replaces, never extends


@pytest.mark.parametrize("given", ["--certificate", "--trust"])
@pytest.mark.parametrize(
    "elsewhere", ["BPFSEAL_CERTIFICATE", "BPFSEAL_TRUST", "certificate", "trust"]
)
def test_what_is_trusted_is_one_set(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str, given: str, elsewhere: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Somebody trusts other keys, whatever variables and files say of the signer's."""

    def of(pair: Keys, option: str) -> str:
        return str(folder_of(pair) if "trust" in option.lower() else pair.certificate)

    if elsewhere.isupper():
        monkeypatch.setenv(elsewhere, of(keys, elsewhere))
    else:
        Path("mine.toml").write_text(f"[verify]\n{elsewhere} = {of(keys, elsewhere)!r}\n")
        monkeypatch.setenv("BPFSEAL_CONFIG", "mine.toml")
    assert cli("verify", signed).status == 0
    done = cli("verify", signed, given, of(other_keys, given))
    assert done.status == 1
    assert done.err == ""


def test_a_variable_replaces_the_set_of_the_file_too(
    cli: Cli, keys: Keys, other_keys: Keys, signed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.toml").write_text(f"[verify]\ncertificate = '{keys.certificate}'\n")
    monkeypatch.setenv("BPFSEAL_TRUST", str(folder_of(other_keys)))
    assert cli("verify", signed, "--config", "mine.toml").status == 1


def test_a_secret_of_the_command_line_replaces_one_of_the_environment(
    cli: Cli, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("passphrase").write_text("x")
    monkeypatch.setenv("BPFSEAL_PASSPHRASE_ENV", "NO_SUCH_VARIABLE")
    options = ("--passphrase-file", "passphrase")
    assert "NO_SUCH_VARIABLE" not in cli("sign", OBJECT, *keys.signing, *options).err


# Relatives


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "x", "--trust", ""),
        ("verify", "x", "--certificate", ""),
        ("verify", ""),
        ("load", "", *MODEL),
        ("load", "x", *MODEL, "--certificate", ""),
        ("build", OBJECT, "-o", ""),
        ("keygen", "--out", ""),
        ("inspect", "x", "--config", ""),
    ],
    ids=str,
)
def test_an_empty_argument_is_not_the_current_directory(
    cli: Cli, keys: Keys, arguments: tuple[str, ...]
) -> None:
    Path("cert.pem").write_bytes(keys.certificate.read_bytes())
    done = cli(*arguments)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "is empty" in done.err
    assert listing(Path()) == ["cert.pem"]


@pytest.mark.parametrize(
    "module", ["multiprocessing", "tomllib", "cryptography", "rich", "bpfseal"]
)
def test_no_module_is_taken_from_the_current_directory(module: str, keys: Keys) -> None:
    """Not by the server that forks for ``--jobs`` either, which Python starts with ``-c``."""
    Path(module).mkdir()
    (Path(module) / "__init__.py").write_text("open('taken', 'w')\n")
    for number in range(3):
        Path(f"{number}.bpf.o").write_bytes(OBJECT.read_bytes())
    Path("bpfseal.toml").write_text("[sign]\njobs = 2\n")
    script = Path(sys.executable).with_name("bpfseal")
    assert script.exists()
    done = subprocess.run(
        [script, "sign", "0.bpf.o", "1.bpf.o", "2.bpf.o", *keys.signing, "-o", "out/"],
        capture_output=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert not Path("taken").exists()


@pytest.mark.parametrize("module", ["cryptography", "json"])
def test_python_m_takes_no_module_from_there_once_it_runs(module: str, keys: Keys) -> None:
    Path(module).mkdir()
    (Path(module) / "__init__.py").write_text("open('taken', 'w')\n")
    command = [sys.executable, "-m", "bpfseal", "sign", str(OBJECT), *map(str, keys.signing)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert not Path("taken").exists()
