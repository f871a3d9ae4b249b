"""The program ends with one line and a documented status, however early it is ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from .support import OBJECT, Cli, make_keys

_AT_IMPORT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            {action}
signal.signal(signal.SIGINT, {handler})
sys.meta_path.insert(0, Finder())
sys.argv = ["bpfseal", *{arguments!r}]
from bpfseal.__main__ import main
sys.exit(main())
"""
_KILL = "os.kill(os.getpid(), signal.SIGINT)"
IMPORTED = [
    "bpfseal.cli",
    "argparse",
    "bpfseal.cli.main",
    "bpfseal.errors",
    "bpfseal.cli.verbs.keygen",
    "bpfseal.signing.keygen",
    "cryptography",
]


def _run(name: str, action: str, handler: str) -> subprocess.CompletedProcess[bytes]:
    arguments = ["keygen", "--type", "p256", "--out", "made"]
    code = _AT_IMPORT.format(name=name, action=action, handler=handler, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize("name", IMPORTED)
def test_a_signal_while_modules_are_imported_ends_it_with_a_line(name: str) -> None:
    done = _run(name, _KILL, "signal.default_int_handler")
    assert (done.returncode, done.stderr) == (130, b"bpfseal: interrupted\n")


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize("name", IMPORTED)
def test_a_signal_that_is_ignored_stays_so(name: str) -> None:
    assert _run(name, _KILL, "signal.SIG_IGN").returncode == 0


@pytest.mark.usefixtures("cli")
@pytest.mark.parametrize("name", ["argparse", "cryptography"])
@pytest.mark.parametrize("error", ["MemoryError", "ImportError('failed to map segment')"])
def test_a_library_that_cannot_be_loaded_is_one_line(name: str, error: str) -> None:
    done = _run(name, f"raise {error}", "signal.default_int_handler")
    assert done.returncode == 4
    assert done.stderr.startswith(b"bpfseal: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("name", ["\U0001f600" * 17, "\u00e9" * 33, "x" * 65, ""])
def test_a_common_name_is_counted_in_bytes(cli: Cli, name: str) -> None:
    done = cli("keygen", "--type", "p256", "--out", "made", "--common-name", name)
    assert done.status == 2
    assert not Path("made").exists()


def test_a_common_name_may_have_64_bytes(cli: Cli) -> None:
    name = "\U0001f600" * 16
    assert cli("keygen", "--type", "p256", "--out", "made", "--common-name", name).status == 0


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2), (0, 1, 2)])
def test_a_key_with_a_passphrase_and_closed_streams(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    (tmp_path / "pass").write_text("hunter2\n")
    encrypted = make_keys(tmp_path, "--passphrase-file", tmp_path / "pass")
    command = [sys.executable, "-m", "bpfseal", "sign", str(OBJECT), "-o", str(tmp_path / "x")]
    command += map(str, encrypted.signing)
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: deque(map(os.close, closed), 0) and None,
    )
    assert done.returncode == 3
