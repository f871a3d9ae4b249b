"""What the documents print can be typed: their examples run, one after the other, as they stand."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bpfseal.bundle.store import read_bundle
from support.lskel_writer import header_of

ROOT = Path(__file__).parents[1]

ELSEWHERE = ("registry.example.org", "localhost:", "/etc/bpfseal", "pip install", "jq ")
"""What a command has that needs more than this machine."""

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="it takes openssl")


def section(name: str, heading: str) -> str:
    """Return a document, or the part of it below a heading."""
    text = (ROOT / name).read_text()
    if not heading:
        return text
    level = heading.split()[0]
    below = text.partition(f"\n{heading}\n")[2]
    assert below, heading
    return re.split(rf"\n#{{2,{len(level)}}} ", below)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of the examples, each with what it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(text, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ ").split("  # ")[0], []))
            elif found and not line.startswith("# "):
                found[-1][1].append(line)
    return found


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    shell = f'bpfseal() {{ "{sys.executable}" -m bpfseal "$@"; }}; {command}'
    environment = {name: value for name, value in os.environ.items() if "BPFSEAL" not in name}
    return subprocess.run(
        ["bash", "-c", shell],
        cwd=place,
        env=environment | {"PYTHONSAFEPATH": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the examples, keys, and a bundle, for pages that begin with these."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def prepared(place: Path) -> None:
    for command, _ in commands(section("docs/cli.md", "## keygen")):
        assert run(command, place).returncode == 0
    sign = "--private-key keys/key.pem --certificate keys/cert.pem"
    assert run(f"bpfseal sign examples/exectrace.bpf.o {sign}", place).returncode == 0


def follow(text: str, place: Path) -> int:
    """Run the examples; they succeed, and what they print is there. Returns how many ran."""
    ran = 0
    for command, shown in commands(text):
        if any(mark in command for mark in ELSEWHERE) or not command.startswith(
            ("bpfseal ", "openssl ")
        ):
            continue
        if command.startswith("bpfseal import "):
            variant = read_bundle(place / "exectrace.bpfseal").variant("kfunc")
            (place / "tool.lskel.h").write_text(header_of(variant))
        done = run(command, place)
        assert done.returncode == 0, (command, done.stderr)
        printed = (done.stdout + done.stderr).splitlines()
        for line in shown:
            pattern = line.replace("[", "[[]").replace("...", "*")
            assert fnmatch.filter(printed, pattern), (command, line, printed)
        ran += 1
    return ran


def write_policy(place: Path) -> None:
    text = section("docs/policy.md", "## A policy that works")
    (place / "site.pol").write_text(blocks(text, "")[0])


def test_the_examples_of_the_command_line_run_in_their_order(place: Path) -> None:
    write_policy(place)
    text = (ROOT / "docs/cli.md").read_text().partition("\n## keygen\n")[2]
    assert follow(f"## keygen\n{text}", place) > 20


@pytest.mark.parametrize(
    ("name", "heading", "count"),
    [("docs/signing.md", "## The key is elsewhere", 7), ("docs/policy.md", "## Asking", 4)],
)
def test_a_recipe_runs_as_printed(place: Path, name: str, heading: str, count: int) -> None:
    prepared(place)
    write_policy(place)
    assert follow(section(name, heading), place) == count


def test_the_examples_of_the_readme_run(place: Path) -> None:
    assert follow(section("README.md", "## Use"), place) == 7
    hardened = "bpfseal sign examples/exectrace.bpf.o --inline-revision hardened -o hardened"
    keys = "--private-key keys/key.pem --certificate keys/cert.pem"
    assert run(f"{hardened} {keys}", place).returncode == 0
    verify = "bpfseal verify --certificate keys/cert.pem --strict"
    assert run(f"{verify} hardened", place).returncode == 0
    assert run(f"{verify} exectrace.bpfseal", place).returncode == 1


def test_git_ignores_what_the_readme_leaves_in_a_clone() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/keys/", "/*.bpfseal", "/payload", "/payload.p7s"} <= set(ignored)


@pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/usr/include/bpf/libbpf.h").exists(),
    reason="it takes a C compiler and libbpf's headers",
)
def test_the_c_example_compiles_without_a_warning(place: Path) -> None:
    prepared(place)
    (source,) = blocks(section("docs/skeletons.md", "## C"), "c")
    members = re.findall(r"skel->(?:maps|progs|bss)[\w.>-]+", source)  # which a comment names
    assert len(members) == 3
    used = "".join(f"\t(void){member};\n" for member in members)
    (place / "main.c").write_text(source.replace("\treturn 0;", f"{used}\treturn 0;"))
    make = "bpfseal skeleton c exectrace.bpfseal -o exectrace.lskel.h"
    assert run(make, place).returncode == 0
    for language in ("c", "c++"):
        done = run(f"cc -x {language} -Wall -Wextra -Werror -c main.c -o main.o", place)
        assert done.returncode == 0, done.stderr
