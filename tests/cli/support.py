"""What the tests of the command line share: running it, keys, and the example object."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bpfseal.cli import main

MODEL = ("--kernel", "model")
"""What `load` needs, so that it does not load into the kernel of a root user."""

OBJECT = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


@dataclass(frozen=True, slots=True)
class Cli:
    """Runs the command line in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Done:
        self.capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        return Done(status, captured.out, captured.err)


def run_process(
    *arguments: str | Path, data: bytes = b"", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "bpfseal", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=False, **options)


@dataclass(frozen=True, slots=True)
class Keys:
    """A key and its certificate, as files."""

    folder: Path

    @property
    def private_key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "cert.pem"

    @property
    def signing(self) -> tuple[str | Path, ...]:
        """The options to sign with."""
        return ("--private-key", self.private_key, "--certificate", self.certificate)


def make_keys(folder: Path, *options: str | Path) -> Keys:
    assert main(["keygen", "--type", "p256", "--out", str(folder), *map(str, options)]) == 0
    return Keys(folder)


def listing(folder: Path) -> list[str]:
    """Return the names in a directory, sorted."""
    return sorted(path.name for path in folder.iterdir())
