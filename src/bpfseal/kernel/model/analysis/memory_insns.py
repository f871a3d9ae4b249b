"""Insns that load and store.

Source: ``check_load_mem``, ``check_store_reg``, ``check_atomic`` and ``check_ld_imm`` in
kernel/bpf/verifier.c.

Example:
    >>> load_insn(env, ldx_mem(op.W, 0, 1, 0))
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.btf.kinds import Kind
from bpfseal.kernel.model.analysis import memory_access, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.tnum import U64
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value

_SIZE: Final = 0x18
_MODE: Final = 0xE0
_U32: Final = 0xFFFFFFFF
_LIKE_OTHERS: Final = frozenset({PointerKind.CTX, PointerKind.BTF})
"""What an insn that is used with it cannot be used with another (``reg_type_mismatch_ok``)."""

_SEEN: Final = {
    PointerKind.MAP_VALUE: "map",
    PointerKind.CTX: "ctx",
    PointerKind.RECORD: "mem",
}


def load_imm64(env: Env, insn: Insn, index: int) -> None:
    """Let a ld_imm64 load a number, a map, a place in a map, or a kernel symbol."""
    reference = env.references.get(index)
    loaded: Value
    if reference is not None:
        if reference.value_offset is None:
            loaded = Pointer(PointerKind.MAP, map=reference.map)
        else:
            loaded = Pointer(PointerKind.MAP_VALUE, off=reference.value_offset, map=reference.map)
    elif insn.src == op.PSEUDO_BTF_ID:
        loaded = _kernel_symbol(env, insn.imm)
    elif insn.src == op.PSEUDO_FUNC:
        loaded = _function(env, index + 1 + insn.imm)
    else:
        loaded = scalar.const((env.insns[index + 1].imm & _U32) << 32 | insn.imm & _U32)
    env.write_register(insn.dst, loaded)


def _function(env: Env, start: int) -> Pointer:
    """Return the address of a function, which a helper may call."""
    if not env.functions:
        raise env.refuse(EINVAL, "check_ld_imm", "missing btf func_info")
    if not env.functions.get(start, False):
        raise env.refuse(EINVAL, "check_ld_imm", "callback function not static")
    return Pointer(PointerKind.FUNCTION, target=start)


def _kernel_symbol(env: Env, type_id: int) -> Value:
    """Return what the address of a kernel variable or function is to a program."""
    if env.btf.name_of(type_id, Kind.FUNC) is not None:
        return Pointer(PointerKind.MEMORY)
    return Pointer(PointerKind.BTF, type_name=env.btf.name_of(type_id, Kind.VAR) or "")


def load_insn(env: Env, insn: Insn) -> None:
    """Let a load change the state.

    Raises:
        Refused: the load is not allowed.
    """
    env.read_register(insn.src)
    env.check_writable(insn.dst)
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    is_signed = insn.code & _MODE == op.MEMSX
    address = env.state.registers[insn.src]
    value = memory_access.load(env, insn.src, insn.off, size, is_signed=is_signed)
    env.write_register(insn.dst, value)
    _note_kind(env, address)


def store_insn(env: Env, insn: Insn) -> None:
    """Let a store or an atomic operation change the state.

    Raises:
        Refused: it is not allowed.
    """
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    if insn.insn_class == op.ST:
        env.read_register(insn.dst)
        value: Scalar | Pointer = scalar.const(insn.imm & U64)
    elif insn.code & _MODE == op.ATOMIC:
        _atomic(env, insn, size)
        return
    else:
        value = _with_id(env, insn, size)
        _check_leak(env, insn, env.read_register(insn.dst), value)
    address = env.state.registers[insn.dst]
    memory_access.store(env, insn.dst, insn.off, size, value, strict=False)
    _note_kind(env, address)


def _note_kind(env: Env, address: Value) -> None:
    """Check that an insn is not used with kinds of pointers that are compiled otherwise.

    Source: ``save_aux_ptr_type`` and ``reg_type_mismatch``.
    """
    assert isinstance(address, Pointer)  # noqa: S101 - the access was allowed
    kind, kinds = address.kind, env.pointer_kinds
    before = kinds.setdefault(env.index, kind)
    if before is not kind and not _LIKE_OTHERS.isdisjoint((before, kind)):
        message = "same insn cannot be used with different pointers"
        raise env.refuse(EINVAL, "save_aux_ptr_type", message)


def _check_leak(env: Env, insn: Insn, target: Value, value: Value) -> None:
    """Check that what is stored is not seen outside of the program (``check_mem_access``)."""
    place = _SEEN.get(target.kind) if isinstance(target, Pointer) else None
    if place is not None:
        env.check_no_leak(value, "check_mem_access", f"R{insn.src} leaks addr into {place}")


def _with_id(env: Env, insn: Insn, size: int) -> Scalar | Pointer:
    """Return what is stored; a spilled number keeps being the register's equal."""
    value = env.read_register(insn.src)
    if (
        isinstance(value, Scalar)
        and not value.umax >> 8 * size
        and _is_stack(env.state.registers[insn.dst])
    ):
        return env.tied(insn.src, value)
    return value


def _is_stack(value: Value) -> bool:
    return isinstance(value, Pointer) and value.kind is PointerKind.STACK


def _atomic(env: Env, insn: Insn, size: int) -> None:
    if insn.imm == op.LOAD_ACQ:
        env.read_register(insn.src)
        _check_kind(env, insn.src, "loads from")
        env.check_writable(insn.dst)
        address = env.state.registers[insn.src]
        value = memory_access.load(env, insn.src, insn.off, size, strict=True)
        env.write_register(insn.dst, value)
        _note_kind(env, address)
        return
    stored = env.read_register(insn.src)
    env.read_register(insn.dst)
    _check_kind(env, insn.dst, "stores into")
    if insn.imm == op.STORE_REL:
        address = env.state.registers[insn.dst]
        memory_access.store(env, insn.dst, insn.off, size, stored, strict=True)
        _note_kind(env, address)
        return
    if insn.imm == op.CMPXCHG:
        env.read_register(0)
    env.check_no_leak(stored, "check_atomic_rmw", f"R{insn.src} leaks addr into mem")
    fetches = insn.imm & op.FETCH
    fetched = 0 if insn.imm == op.CMPXCHG else insn.src
    if fetches:
        env.check_writable(fetched)
    old = memory_access.load(env, insn.dst, insn.off, size, strict=True)
    memory_access.store(env, insn.dst, insn.off, size, None, strict=True)
    if fetches:
        env.write_register(fetched, old)


def _check_kind(env: Env, register: int, verb: str) -> None:
    """Refuse atomics on memory that they are not for (``atomic_ptr_type_ok``)."""
    value = env.state.registers[register]
    if isinstance(value, Pointer) and value.kind is PointerKind.CTX:
        message = f"BPF_ATOMIC {verb} R{register} {value.word} is not allowed"
        raise env.refuse(EACCES, "check_atomic", message)
