"""A plugin for bpf_conformance, the public suite of BPF instruction tests: our machine as runtime.

The suite starts a plugin once for each of its tests: the program comes as hexadecimal bytes on
standard input, the memory that r1 points to (its size is in r2) as hexadecimal bytes in the first
argument; r0 is expected as a hexadecimal number on standard output. A program that is refused or
faults is a message on standard error and an exit status that is not 0.

Run it with::

    bpf_conformance_runner --test_file_directory tests --plugin_path plugin.sh

where ``plugin.sh`` starts ``python tests/isa/plugin.py`` with its own arguments.
"""

from __future__ import annotations

import sys

from bpfseal.bpf.insn import decode_insns
from bpfseal.errors import BpfsealError
from bpfseal.kernel.model.machine import HelperFunction, Machine, Program
from bpfseal.kernel.model.memory import Memory

_U32 = 0xFFFFFFFF


def _gather_bytes(_machine: Machine, a: int, b: int, c: int, d: int, e: int) -> int:
    """Helper 0 of the suite: the low bytes of five arguments as one number."""
    return (a & 0xFF) << 32 | (b & 0xFF) << 24 | (c & 0xFF) << 16 | (d & 0xFF) << 8 | e & 0xFF


def _memfrob(machine: Machine, address: int, size: int, *_unused: int) -> int:
    """Helper 1 of the suite: every byte exclusive-or 42."""
    data = machine.memory.read(address, size & _U32)
    machine.memory.write(address, bytes(byte ^ 42 for byte in data))
    return 0


def _unwind(_machine: Machine, value: int, *_unused: int) -> int:
    """Helper 5 of the suite."""
    return value


HELPERS: dict[int, HelperFunction] = {0: _gather_bytes, 1: _memfrob, 5: _unwind}
"""The helpers that the suite's own programs call."""


def run(program: bytes, data: bytes) -> int:
    """Run a program on a memory and return r0."""
    memory = Memory()
    region = memory.map("memory", bytearray(data))
    machine = Machine(memory, HELPERS, {})
    code = Program(tuple(decode_insns(program)), "conformance")
    return machine.run(code, region.base, len(data))


def main(arguments: list[str]) -> int:
    """Run the program on standard input; return the exit status."""
    words = [argument for argument in arguments if not argument.startswith("--")]
    try:
        data = bytes.fromhex(words[0]) if words else b""
        program = bytes.fromhex(sys.stdin.read())
        result = run(program, data)
    except (BpfsealError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{result:x}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
