"""Loading into a real kernel needs the standard library only: there may be nothing else there."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"cryptography", "elftools", "rich", "oras", "pkcs11"}:
            raise ModuleNotFoundError(f"{name} is not part of the standard library")
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    "module",
    [
        "bpfseal",
        "bpfseal.bundle.store",
        "bpfseal.kernel.choose",
        "bpfseal.kernel.linux.kernel",
        "bpfseal.kernel.linux.subject",
        "bpfseal.kernel.scenario",
        "bpfseal.skeleton",
    ],
)
def test_the_module_needs_the_standard_library_only(module: str) -> None:
    command = [sys.executable, "-c", f"{BLOCKED}import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_block_works() -> None:
    command = [sys.executable, "-c", f"{BLOCKED}import bpfseal.signing.signer"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: cryptography" in done.stderr
