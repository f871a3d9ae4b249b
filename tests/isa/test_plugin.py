"""The plugin for the public suite: what it takes and what it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, call_helper, encode_insns, exit_insn, ldx_mem, mov64_reg

from .plugin import run

PLUGIN = Path(__file__).with_name("plugin.py")


def start(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PLUGIN), *arguments],
        input=program,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_in_hexadecimal_gives_r0_in_hexadecimal() -> None:
    done = start(encode_insns([ldx_mem(op.W, 0, 1, 0), exit_insn()]).hex(" "), "2a000000")
    assert (done.returncode, done.stdout) == (0, "2a\n")


def test_a_refused_program_is_an_error_with_a_message() -> None:
    done = start("ff00000000000000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "conformance, insn 0: unknown opcode ff\n"


def test_what_is_no_hexadecimal_is_an_error() -> None:
    assert start("no program").returncode == 1


def test_r2_is_the_size_of_the_memory() -> None:
    program = encode_insns([mov64_reg(0, 2), exit_insn()])
    assert run(program, bytes(6)) == 6


def test_the_helpers_of_the_suite_are_there() -> None:
    swap = [call_helper(1), Insn(op.JMP | op.EXIT)]
    assert run(encode_insns([ldx_mem(op.B, 0, 1, 0), exit_insn()]), b"\5") == 5
    assert run(encode_insns(swap), b"\5") == 0
