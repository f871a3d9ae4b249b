"""The contract under hostile arguments and environments, for every verb.

A documented status, no traceback, no message of more than one line, no file left over.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bpfseal.cli.verbs import VERBS

from .support import OBJECT, Cli, Keys, listing

DOCUMENTED = {0, 1, 2, 3, 4, 130, 141}
BPFSEAL = Path(sys.executable).with_name("bpfseal")

Arguments = tuple[str | bytes | Path, ...]


def arguments_of(verb: str, given: str | bytes | Path, keys: Keys) -> Arguments:
    """Return arguments of a verb that do something with an input."""
    signing: Arguments = keys.signing
    certificate: Arguments = ("--certificate", keys.certificate)
    return {
        "keygen": ("keygen", "--type", "p256", "--out", given),
        "build": ("build", given, "-o", "out"),
        "sign": ("sign", given, *signing, "-o", "out"),
        "prepare": ("prepare", given, "--scheme", "kfunc", "-o", "out"),
        "attach": ("attach", given, "--signature", given, *certificate, "--scheme", "kfunc"),
        "verify": ("verify", given, *certificate),
        "inspect": ("inspect", given),
        "load": ("load", given, "--kernel", "model", *certificate),
        "policy": ("policy", "check", given),
        "export": ("export", given, "--scheme", "kfunc", "--insns", "out"),
        "skeleton": ("skeleton", "c", given),
        "import": ("import", given, "-o", "out"),
        "probe": ("probe", "--host-values", given),
        "push": ("push", given, "localhost:1/x:1", "--plain-http", "--timeout", "1"),
        "pull": ("pull", given, "--plain-http", "--timeout", "1"),
    }[verb]


def run(
    *arguments: str | bytes | Path,
    streams: str = "",
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Run the script; `streams` are redirections."""
    command = [os.fsencode(argument) for argument in (BPFSEAL, *arguments)]
    if streams:
        command = [b"/bin/sh", b"-c", b'exec "$@" ' + streams.encode(), b"sh", *command]
    env = {name: value for name, value in os.environ.items() if not name.startswith("BPFSEAL_")}
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=env | dict(environment or {}),
        **options,
    )


def here(cli: Cli, *arguments: str | bytes | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in this process; arguments are decoded as Python does it."""
    done = cli(*map(os.fsdecode, arguments))
    out, err = (os.fsencode(text) for text in (done.out, done.err))
    return subprocess.CompletedProcess(arguments, done.status, out, err)


def keeps_the_contract(done: subprocess.CompletedProcess[bytes], *, lines: int = 1) -> None:
    """Check status and messages."""
    assert done.returncode in DOCUMENTED, done.stderr.decode("utf-8", "replace")
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    assert done.stderr.count(b"\n") <= lines, done.stderr.decode("utf-8", "replace")
    assert all(byte == 0x0A or byte >= 0x20 for byte in done.stderr), done.stderr
    if done.returncode in (2, 3, 4) and b"REFUSED" not in done.stdout:
        assert done.stderr.startswith(b"bpfseal: ")


# Names and contents of inputs


NAMES: dict[str, str | bytes] = {
    "undecodable": b"\xff\xfe.bpf.o",
    "a surrogate in UTF-8": b"\xed\xa0\x80",
    "too long": "x" * 5000,
    "too long in parts": "/".join(["x" * 200] * 30),
    "control characters": "\x1b[2J\r\n\t\x07\x7f.bpf.o",
    "bidirectional": "\u202eo.fpb",
    "a directory": ".",
    "the root": "/",
    "a device": "/dev/null",
    "a process's memory": "/proc/self/mem",
    "below a file": "/etc/passwd/x",
    "a URI with a PIN": "pkcs11:token=a?pin-value=1234",
    "a number": "9" * 4000,
    "a percent sign": "%s%n{0}{x!r}",
    "markup": "[bold red]x[/]",
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_an_input_breaks_a_verb(cli: Cli, verb: str, name: str, keys: Keys) -> None:
    if verb == "keygen" and not isinstance(NAMES[name], bytes):
        pytest.skip("the name of a directory for keys may be anything")
    before = listing(Path())
    done = here(cli, *arguments_of(verb, NAMES[name], keys))
    keeps_the_contract(done)
    assert done.returncode in ((0, 1, 2, 3, 4) if verb in ("keygen", "policy") else (2, 3, 4))
    assert b"1234" not in done.stderr + done.stdout or name == "a number"
    if verb != "keygen":
        assert listing(Path()) == before


CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(10_000),
    "nested JSON": b"[" * 100_000,
    "a huge number": b"9" * 100_000,
    "ELF magic": b"\x7fELF" + bytes(60),
    "an ELF of ones": b"\x7fELF" + b"\xff" * 1000,
    "PEM without an end": b"-----BEGIN CERTIFICATE-----\n" * 1000,
    "newlines": b"\n" * 20_000,
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_content_breaks_a_verb(cli: Cli, verb: str, keys: Keys) -> None:
    if verb in ("keygen", "pull"):
        pytest.skip("it reads no such file")
    for content in CONTENTS.values():
        Path("input").write_bytes(content)
        done = here(cli, *arguments_of(verb, "input", keys))
        keeps_the_contract(done)
        assert listing(Path()) == ["input"]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "option",
    [
        ("sign", "--private-key"),
        ("sign", "--certificate"),
        ("sign", "--kconfig"),
        ("sign", "--as-built-on"),
        ("verify", "--certificate"),
        ("load", "--certificate"),
        ("load", "--btf"),
        ("load", "--policy"),
        ("inspect", "--config"),
    ],
    ids=" ".join,
)
def test_no_content_of_an_option_breaks_a_verb(
    cli: Cli, option: tuple[str, str], content: str, keys: Keys
) -> None:
    verb, name = option
    Path("input").write_bytes(CONTENTS[content])
    done = here(cli, *arguments_of(verb, OBJECT, keys), name, "input")
    keeps_the_contract(done, lines=2)


# The config file


CONFIGS: dict[str, bytes] = {
    "nested arrays": b"x = " + b"[" * 50_000,
    "nested tables": b"x = " + b"{a=" * 50_000,
    "a dotted key": b"a." * 8_000 + b"a = 1",
    "a long dotted key": b"a." * 50_000 + b"a = 1",
    "a huge number": b"[build]\npage-size = " + b"9" * 100_000,
    "a huge hexadecimal number": b"[build]\npage-size = 0x" + b"f" * 100_000,
    "a float": b"[build]\npage-size = 1e400",
    "not UTF-8": b"\xff",
    "a surrogate": b'[build]\nkernel-version = "\\ud800"',
    "NUL": b"[build]\nkernel-version = '\0'",
    "an escaped NUL": b'[build]\nkernel-version = "\\u0000"',
    "control characters": b'["\\u001b[2J"]\nx = 1',
    "a verb that is no table": b"build = 3",
    "a date": b"[build]\nkernel-version = 2026-01-01",
    "too large": b"#" * (2 << 20),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("named", [True, False])
def test_no_config_file_breaks_the_command_line(cli: Cli, name: str, *, named: bool) -> None:
    path = Path("mine.toml" if named else "bpfseal.toml")
    path.write_bytes(CONFIGS[name])
    done = here(cli, "build", OBJECT, "-o", "out", *(("--config", path) if named else ()))
    keeps_the_contract(done)
    assert done.returncode in (2, 3)
    assert listing(Path()) == [path.name]


@pytest.mark.parametrize("kind", ["directory", "pipe", "link to nowhere", "loop", "device"])
def test_a_config_file_that_is_no_file_does_not_hang(cli: Cli, kind: str) -> None:
    path = Path("bpfseal.toml")
    links = {"link to nowhere": "nowhere", "loop": path.name, "device": "/dev/null"}
    if kind in links:
        path.symlink_to(links[kind])
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    done = here(cli, "inspect", OBJECT)
    keeps_the_contract(done)
    assert done.returncode == (0 if kind == "link to nowhere" else 3)


# Numbers and other values


@pytest.mark.parametrize(
    "arguments",
    [
        ("sign", "--jobs", "9" * 5000),
        ("sign", "--jobs", "-1"),
        ("sign", "--page-size", "9" * 4200),
        ("sign", "--page-size", "0"),
        ("sign", "--possible-cpus", "9" * 4200),
        ("sign", "--possible-cpus", "-1"),
        ("sign", "--kernel-version", f"{'9' * 5000}.1.1"),
        ("sign", "--kernel-version", "\u0663.\u0661.\u0660"),
        ("load", "--keyring", "9" * 5000),
        ("load", "--keyring", f"0x{'f' * 5000}"),
        ("load", "--keyring", "\u0663"),
        ("load", "--kernel", "model:" + "x" * 5000),
        ("push", "--timeout", "9" * 5000),
        ("pull", "--timeout", "1e3"),
        ("keygen", "--common-name", b"\xff\xfe"),
        ("keygen", "--common-name", "x" * 5000),
        ("keygen", "--common-name", "\x1b[2J"),
        ("keygen", "--passphrase-env", "="),
        ("keygen", "--passphrase-env", b"\xff"),
        ("build", "-o", b"\xff/\xfe"),
        ("build", "-o", "x" * 300),
        ("build", "-o", "/dev/full"),
        ("build", "-o", "/proc/x"),
        ("prepare", "-o", b"\xff"),
        ("skeleton", "-o", "x" * 300),
        ("export", "--data", "out"),
        ("inspect", "--scheme", b"\xff"),
        ("inspect", "--config", b"\xff"),
        ("inspect", b"\xff", "x"),
        ("inspect", "--no-such-option=\x1b[2J", "x"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("json_wanted", [False, True], ids=["text", "json"])
def test_no_value_breaks_a_verb(
    cli: Cli, arguments: tuple[str | bytes, ...], keys: Keys, *, json_wanted: bool
) -> None:
    verb = str(arguments[0])
    given: str | Path = "localhost:1/x" if verb == "pull" else OBJECT
    before = arguments_of(verb, "keys" if verb == "keygen" else given, keys)
    done = here(cli, *before, *arguments[1:], *(("--json",) if json_wanted else ()))
    keeps_the_contract(done, lines=2)
    if json_wanted and verb != "skeleton":
        document = json.loads(done.stdout)
        assert document["status"] == done.returncode
    left = [name for name in listing(Path()) if ".tmp" in name]
    assert left == []


# stdin, stdout, stderr


@pytest.mark.parametrize(
    ("verb", "extra"),
    [
        ("inspect", ()),
        ("verify", ("--json",)),
        ("skeleton", ()),
        ("build", ("-o", "-")),
        ("load", ("-v",)),
    ],
    ids=str,
)
def test_a_closed_stdout_is_status_4_or_what_came_before(
    verb: str, extra: tuple[str, ...], keys: Keys
) -> None:
    done = run(*arguments_of(verb, OBJECT, keys), *extra, streams=">&-")
    keeps_the_contract(done, lines=3)
    assert done.returncode != 0 or extra == ("--help",)
    full = run(*arguments_of(verb, OBJECT, keys), *extra, streams=">/dev/full")
    keeps_the_contract(full, lines=3)
    if verb in ("inspect", "verify"):
        assert (done.returncode, full.returncode) == (4, 4)
        assert b"bpfseal: stdout: cannot be written: it is closed" in done.stderr
        assert b"bpfseal: stdout: cannot be written: No space left on device" in full.stderr


@pytest.mark.parametrize("shell", ["2>&-", "2>/dev/full", "2>&1 >&- | :"])
def test_a_stderr_that_takes_nothing_changes_no_status(shell: str, keys: Keys) -> None:
    good = run("inspect", OBJECT, "-v", streams=shell)
    bad = run("inspect", "missing", streams=shell)
    if "|" not in shell:
        assert (good.returncode, bad.returncode) == (0, 3)
    assert run("verify", OBJECT, "--certificate", keys.certificate, streams=shell).returncode in (
        0,
        1,
    )


@pytest.mark.parametrize("verb", ["keygen", "sign", "load", "prepare"])
def test_closed_streams_are_no_place_for_files(verb: str, keys: Keys) -> None:
    """The first file that is opened would get the number 0, 1 or 2."""
    done = run(*arguments_of(verb, "-", keys), streams="<&- >&- 2>&-")
    assert done.returncode in DOCUMENTED
    for path in Path().iterdir():
        assert path.is_dir() or b"bpfseal:" not in path.read_bytes()


@pytest.mark.parametrize("shell", ["<&-", "< /dev/null"])
def test_a_stdin_that_gives_nothing_is_bad_input(shell: str, keys: Keys) -> None:
    done = run("verify", "-", "--certificate", keys.certificate, streams=shell)
    keeps_the_contract(done)
    assert done.returncode == 3
    assert b"stdin" in done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "tlh_KX.UTF-8"},
        {"PYTHONWARNINGS": "", "TERM": "\x1b", "COLUMNS": "0"},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"},
        {"PATH": ""},
    ],
    ids=str,
)
def test_any_encoding_of_the_streams_does(environment: dict[str, str], keys: Keys) -> None:
    name = b"\xe2\x82\xac\xff.bpf.o"
    Path(os.fsdecode(name)).write_bytes(OBJECT.read_bytes())
    for extra in (("-v",), ("--json",)):
        done = run(
            "verify", name, "--certificate", keys.certificate, *extra, environment=environment
        )
        assert done.returncode == 1, done.stderr
        assert b"Traceback" not in done.stderr


# Current directory, rights, memory, signals


def test_a_directory_that_cannot_be_searched_is_not_blamed_on_stdout(tmp_path: Path) -> None:
    place = tmp_path / "closed"
    place.mkdir()
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*without, str(BPFSEAL), "inspect", "missing"]
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        command = command[len(without) :]
    done = subprocess.run(
        ["/bin/sh", "-c", f'cd {place} && chmod 0 . && exec "$@"', "sh", *command],
        capture_output=True,
        check=False,
    )
    place.chmod(0o700)
    keeps_the_contract(done)
    assert done.returncode == 3
    assert done.stderr == b"bpfseal: inspect: bpfseal.toml: cannot be read: Permission denied\n"


@pytest.mark.parametrize("verb", ["keygen", "build", "verify", "push", "skeleton"])
def test_a_directory_that_is_gone_is_no_defect(verb: str, tmp_path: Path, keys: Keys) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    given = "keys" if verb == "keygen" else OBJECT
    command = [os.fsdecode(each) for each in (BPFSEAL, *arguments_of(verb, given, keys))]
    done = subprocess.run(
        ["/bin/sh", "-c", f'cd {place} && rmdir {place} && exec "$@"', "sh", *command],
        capture_output=True,
        check=False,
    )
    keeps_the_contract(done, lines=2)
    assert b"stdout" not in done.stderr


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


def test_too_little_memory_is_status_4() -> None:
    Path("big").write_bytes(b"\x7fELF" + bytes(150 << 20))
    done = run("build", "big", preexec_fn=limited(resource.RLIMIT_AS, 250 << 20))
    assert done.returncode in (3, 4)
    keeps_the_contract(done)


def test_too_few_file_descriptors_are_status_3_or_4(keys: Keys) -> None:
    for count in (5, 12):
        done = run(
            *arguments_of("verify", OBJECT, keys),
            preexec_fn=limited(resource.RLIMIT_NOFILE, count),
        )
        if b"bpfseal" not in done.stderr.split(b":")[0] and done.returncode not in DOCUMENTED:
            continue  # Python itself does not come up
        assert b"internal error" not in done.stderr


def test_an_interrupt_is_130_and_one_line() -> None:
    os.mkfifo("pipe")
    process = subprocess.Popen(
        [BPFSEAL, "inspect", "pipe"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with Path("pipe").open("wb"):  # opens once the process does
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"bpfseal: interrupted\n")
