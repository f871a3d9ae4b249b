"""What the installed kernel headers say, by way of the C compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

HEADERS = Path("/usr/include/linux")


def header(name: str) -> str:
    """Return the text of a header; skip the test if there is none."""
    path = HEADERS / name
    if not path.exists():
        pytest.skip(f"{path} is not installed (Debian: linux-libc-dev)")
    return path.read_text()


def evaluate(name: str, expressions: Mapping[str, str]) -> dict[str, int]:
    """Return the value of each C expression over a header; skip the test without gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    if not expressions:
        return {}
    values = "\n".join(f'printf("%lld\\n", (long long)({text}));' for text in expressions.values())
    source = (
        f"#include <stddef.h>\n#include <stdio.h>\n#include <linux/{name}>\n"
        f"int main(void) {{ {values} return 0; }}\n"
    )
    with TemporaryDirectory() as folder:
        program = Path(folder) / "values"
        subprocess.run(
            ["gcc", "-w", "-x", "c", "-", "-o", program], input=source, text=True, check=True
        )
        output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return dict(zip(expressions, map(int, output.split()), strict=True))


def skip_if_missing(name: str, missing: Sequence[str]) -> None:
    """Say what the installed header is too old to have; call it when all else is checked."""
    if missing:
        pytest.skip(f"the installed linux/{name} is too old for: {', '.join(missing)}")
