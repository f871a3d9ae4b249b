"""Turn the references in a program's ld_imm64 into addresses, for programs that run.

Source: kernel/bpf/verifier.c ``resolve_pseudo_ldimm64`` and ``check_pseudo_btf_id``.

Example:
    >>> relocate(state, program).insns[0].src
    0
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from errno import EINVAL, ENOENT

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, ld_imm64
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.kernel.model import machine
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState


def relocate(state: KernelState, program: ModelProgram) -> machine.Program:
    """Return a program as the machine runs it.

    Raises:
        KernelError: EINVAL for a typed ksym that is neither a variable nor a function, ENOENT
            for one without an address.
    """
    insns = list(program.insns)
    for use in program.references:
        address = (
            use.map.struct_address()
            if use.value_offset is None
            else use.map.value_address(use.value_offset)
        )
        insns[use.index : use.index + 2] = _address(insns[use.index], address)
    for index, insn in enumerate(program.insns):
        if insn.is_ld_imm64 and insn.src == op.PSEUDO_BTF_ID:
            insns[index : index + 2] = _address(insn, ksym_address(state, insn.imm))
        elif insn.is_ld_imm64 and insn.src == op.PSEUDO_FUNC:
            insns[index : index + 2] = _address(insn, index + 1 + insn.imm)
    return machine.Program(tuple(insns), program.name, _lines(program))


def _lines(program: ModelProgram) -> Mapping[int, str]:
    """Return the lines of source that a program's BTF tells, by their first insn."""
    return {} if program.btf is None else _SourceLines(program.btf.btf, program.line_info)


class _SourceLines(Mapping[int, str]):
    """Lines of source, each put together when it is asked for: many may share long strings."""

    def __init__(self, btf: Btf, line_info: Iterable[tuple[int, int, int, int]]) -> None:
        self._btf = btf
        self._places = {insn: where for insn, *where in line_info}

    def __getitem__(self, insn: int) -> str:
        file, line, place = self._places[insn]
        return f"{self._btf.string(file)}:{place >> 10}: {self._btf.string(line).strip()}"

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _address(insn: Insn, address: int) -> tuple[Insn, Insn]:
    return ld_imm64(insn.dst, 0, address & 0xFFFFFFFF, address >> 32)


def ksym_address(state: KernelState, type_id: int) -> int:
    """Return the address of the kernel variable or function that a type of its BTF is.

    Raises:
        KernelError: EINVAL for another type, ENOENT for one without an address.
    """
    source = "kernel/bpf/verifier.c check_pseudo_btf_id"
    name = state.btf.name_of(type_id, Kind.VAR) or state.btf.name_of(type_id, Kind.FUNC)
    if name is None:
        log = f"pseudo btf_id {type_id} in ldimm64 isn't KIND_VAR or KIND_FUNC"
        raise refusal(EINVAL, source, log, log=log)
    address = state.symbols.address(name)
    if address is None:
        log = f"ldimm64 failed to find the address for kernel symbol '{name}'."
        raise refusal(ENOENT, source, log, log=log)
    return address
