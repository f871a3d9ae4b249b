"""Compile and run small C programs around a skeleton."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bpfseal.bpf.insn import Insn, exit_insn, ldx_mem, stx_mem
from bpfseal.bpf.opcodes import W
from bpfseal.bpf.uapi import MapType
from support.object_writer import ObjectWriter, Reference, load

WARNINGS = ("-Wall", "-Wextra", "-Werror")
HEADER = "skeleton.h"


def filter_object() -> ObjectWriter:
    """A socket filter that returns `limit` and leaves it in `seen`: harmless and allowed."""
    writer = ObjectWriter()
    writer.add_map("table", type=MapType.HASH, max_entries=9, key=1, value=1)
    writer.add_variable("limit", ".rodata", (7).to_bytes(4, "little"))
    writer.add_variable("seen", ".bss", bytes(4))
    code: list[Insn | Reference] = [
        *load(1, "limit"),
        ldx_mem(W, 0, 1, 0),
        *load(1, "seen"),
        stx_mem(W, 1, 0, 0),
        exit_insn(),
    ]
    writer.add_program("socket", "main", code)
    return writer


def need_compiler(compiler: str = "gcc") -> None:
    """Skip the test where the compiler or libbpf's headers are missing."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    if not Path("/usr/include/bpf/skel_internal.h").exists():
        pytest.skip("the headers of libbpf (libbpf-dev) are not installed")


def compiled(folder: Path, header: str, code: str, *options: str, language: str = "c") -> Path:
    """Return a program that includes the header, compiled without a warning."""
    need_compiler("gcc" if language == "c" else "g++")
    (folder / HEADER).write_text(header)
    source = folder / f"program.{language}"
    source.write_text(code)
    program = folder / "program"
    compiler = "gcc" if language == "c" else "g++"
    command = [compiler, *WARNINGS, *options, str(source), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def output_of(program: Path, *arguments: str) -> list[str]:
    """Run a program, which must succeed, and return the lines that it prints."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()
