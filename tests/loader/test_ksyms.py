"""Kernel symbols: looked up once for each program, then copied (``emit_relo*``, gen_loader.c)."""

from __future__ import annotations

import errno

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import ByteOrder, Insn, decode_insns, exit_insn
from bpfseal.bpf.uapi import Helper
from bpfseal.btf.kinds import Kind
from bpfseal.errors import UnsupportedError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from support.loader_reading import helper_calls, program_insns
from support.object_writer import Code, ObjectWriter, call, load

from .test_attach import looked_up

FD_SLOTS = 64
"""Slots of the fd array that maps have; kfuncs' BTFs follow."""


def made(writer: ObjectWriter, code: Code) -> Loader:
    writer.add_program("xdp", "main", [*code, exit_insn()])
    return generate(writer.read(), "kfunc")


def after_lookup(loader: Loader, helper: Helper = Helper.BTF_FIND_BY_NAME_KIND) -> list[Insn]:
    """Return the loader's instructions behind the first look-up and its ``r7 = r0``."""
    index = next(c.index for c in helper_calls(loader) if c.helper == helper)
    return decode_insns(loader.insns, loader.byteorder)[index + 2 :]


def test_a_kfunc_is_looked_up_once_and_copied() -> None:
    writer = ObjectWriter()
    writer.add_kfunc("bpf_kfunc")
    loader = made(writer, [call("bpf_kfunc"), call("bpf_kfunc"), call("bpf_kfunc")])
    assert looked_up(loader) == [("bpf_kfunc", Kind.FUNC)]
    assert program_insns(loader)[:3] == [Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL)] * 3


def test_each_kfunc_has_a_slot_of_the_fd_array() -> None:
    writer = ObjectWriter()
    writer.add_kfunc("first")
    writer.add_kfunc("second")
    loader = made(writer, [call("second"), call("first")])
    assert looked_up(loader) == [("second", Kind.FUNC), ("first", Kind.FUNC)]
    slots = [
        insn.imm
        for insn in decode_insns(loader.insns)
        if (insn.code, insn.dst) == (op.ST | op.MEM | op.H, 8) and insn.imm
    ]
    assert slots == [FD_SLOTS, FD_SLOTS + 1]


def test_each_program_looks_its_kfuncs_up() -> None:
    writer = ObjectWriter()
    writer.add_kfunc("bpf_kfunc")
    writer.add_program("xdp", "other", [call("bpf_kfunc"), exit_insn()])
    assert looked_up(made(writer, [call("bpf_kfunc")])) == [("bpf_kfunc", Kind.FUNC)] * 2


@pytest.mark.parametrize("weak", [False, True])
def test_only_a_strong_kfunc_must_be_there(weak: bool) -> None:
    writer = ObjectWriter()
    writer.add_kfunc("bpf_kfunc", weak=weak)
    following = after_lookup(made(writer, [call("bpf_kfunc")]))
    leaves = (following[0].code, following[0].dst) == (op.JMP | op.JSLT, 7)
    assert leaves == (not weak)
    assert leaves == (following[0].off < 0)


@pytest.mark.parametrize("weak", [False, True])
def test_a_symbol_with_a_type_is_looked_up_in_the_btf(weak: bool) -> None:
    writer = ObjectWriter()
    writer.add_ksym("runqueues", writer.btf.add_struct("rq", 8, []), weak=weak)
    loader = made(writer, [*load(1, "runqueues"), *load(2, "runqueues")])
    assert looked_up(loader) == [("runqueues", Kind.VAR)]
    assert program_insns(loader)[0] == Insn(op.LD_IMM64, 1, op.PSEUDO_BTF_ID)
    assert program_insns(loader)[2] == Insn(op.LD_IMM64, 2, op.PSEUDO_BTF_ID)
    assert (after_lookup(loader)[0].off < 0) == (not weak)


def test_the_address_of_a_kfunc_is_looked_up_as_a_function() -> None:
    writer = ObjectWriter()
    writer.add_kfunc("bpf_kfunc")
    loader = made(writer, [*load(1, "bpf_kfunc"), call("bpf_kfunc")])
    assert looked_up(loader) == [("bpf_kfunc", Kind.FUNC)] * 2


@pytest.mark.parametrize("weak", [False, True])
def test_a_symbol_without_a_type_is_looked_up_in_kallsyms(weak: bool) -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies", weak=weak)
    loader = made(writer, [*load(1, "jiffies"), *load(1, "jiffies")])
    (lookup,) = [c for c in helper_calls(loader) if c.helper == Helper.KALLSYMS_LOOKUP_NAME]
    at, size = lookup.arguments[1].number, lookup.arguments[2].number
    assert loader.metadata[at : at + size] == b"jiffies\0"
    assert lookup.arguments[4].kind == "address"
    assert program_insns(loader)[0] == Insn(op.LD_IMM64, 1)
    # strong or weak, a name that is not there gives address 0, as in the reference
    insns = decode_insns(loader.insns)
    jump = insns[lookup.index + 3]
    assert (jump.code, jump.dst, jump.off, jump.imm) == (op.JMP | op.JEQ, 7, 1, -errno.ENOENT)


@pytest.mark.parametrize(("byteorder", "mask"), [("little", 0x0F), ("big", 0xF0)])
def test_a_missing_weak_symbol_loses_its_pseudo_source(byteorder: ByteOrder, mask: int) -> None:
    writer = ObjectWriter(byteorder)
    writer.add_ksym("runqueues", writer.btf.add_struct("rq", 8, []), weak=True)
    loader = made(writer, load(1, "runqueues"))
    insns = decode_insns(loader.insns, byteorder)
    assert Insn(op.ALU | op.AND | op.K, 9, 0, 0, mask) in insns


@pytest.mark.parametrize("count", [256, 257])
def test_a_program_calls_up_to_256_kfuncs(count: int) -> None:
    writer = ObjectWriter()
    for number in range(count):
        writer.add_kfunc(f"kfunc{number}")
    code = [call(f"kfunc{number}") for number in range(count)]
    if count == 256:
        assert len(looked_up(made(writer, code))) == 256
        return
    with pytest.raises(UnsupportedError, match="more than 256 kfuncs"):
        made(writer, code)
