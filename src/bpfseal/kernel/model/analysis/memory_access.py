"""Loads and stores through every kind of pointer.

Source: ``check_mem_access``, ``check_ptr_alignment``, ``check_mem_region_access`` and
``check_ptr_to_map_access`` in kernel/bpf/verifier.c; ``syscall_prog_is_valid_access`` in
kernel/bpf/syscall.c; ``btf_struct_walk`` in kernel/bpf/btf.c.

Example:
    >>> load(env, register=10, off=-8, size=8)
    Scalar(value=0, mask=0, ...)
"""

from __future__ import annotations

from errno import EACCES, EINVAL, EPERM
from typing import Final

from bpfseal.bpf.uapi import MapFlag, MapType
from bpfseal.kernel.model.analysis import scalar, stack, tnum
from bpfseal.kernel.model.analysis.arithmetic import sign_extend, truncate
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.pointer_math import total_offset
from bpfseal.kernel.model.analysis.scalar import S64_MIN, Scalar, build
from bpfseal.kernel.model.analysis.stack import MAX_VAR_OFF, Access
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value, describe
from bpfseal.kernel.model.refusal import ENOTSUPP

MAX_CTX_OFFSET: Final = 0xFFFF
"""No access of a context may begin here or later (``syscall_prog_is_valid_access``)."""

_ALIGNED_NAMES: Final = {
    PointerKind.STACK: "stack ",
    PointerKind.CTX: "context ",
    PointerKind.MAP_VALUE: "value ",
    PointerKind.MAP_KEY: "key ",
}
_REGIONS: Final = {
    PointerKind.MAP_VALUE: ("map value", "value_size"),
    PointerKind.MAP_KEY: ("map key", "key_size"),
}
_STRUCTS: Final = {
    MapType.HASH: "bpf_htab",
    MapType.PERCPU_HASH: "bpf_htab",
    MapType.LRU_HASH: "bpf_htab",
    MapType.LRU_PERCPU_HASH: "bpf_htab",
    MapType.HASH_OF_MAPS: "bpf_htab",
    MapType.ARRAY: "bpf_array",
    MapType.PERCPU_ARRAY: "bpf_array",
    MapType.ARRAY_OF_MAPS: "bpf_array",
    MapType.PROG_ARRAY: "bpf_array",
    MapType.PERF_EVENT_ARRAY: "bpf_array",
    MapType.CGROUP_ARRAY: "bpf_array",
    MapType.LPM_TRIE: "lpm_trie",
    MapType.RINGBUF: "bpf_ringbuf_map",
    MapType.USER_RINGBUF: "bpf_ringbuf_map",
    MapType.QUEUE: "bpf_queue_stack",
    MapType.STACK: "bpf_queue_stack",
    MapType.STACK_TRACE: "bpf_stack_map",
    MapType.BLOOM_FILTER: "bpf_bloom_filter",
}
"""The struct of each map type that begins with ``struct bpf_map`` (``map_btf_name``)."""


def load(
    env: Env, register: int, off: int, size: int, *, is_signed: bool = False, strict: bool = False
) -> Scalar | Pointer:
    """Return what a load gives.

    Args:
        env: the program.
        register: the register with the pointer.
        off: the offset of the insn.
        size: bytes.
        is_signed: the value is sign-extended.
        strict: the address must be aligned whatever it points to.

    Raises:
        Refused: the pointer is none, or does not allow it.
    """
    value = _access(env, register, off, size, "read", None, strict=strict)
    assert value is not None  # noqa: S101 - reads give values
    if size == 8 or isinstance(value, Pointer):
        return value
    if is_signed:
        return sign_extend(value, 8 * size, 64)
    return low_bytes(value, size)


def low_bytes(value: Scalar, size: int) -> Scalar:
    """Return the low bytes of a scalar, zero-extended (``coerce_reg_to_size``)."""
    if not value.mask:
        return scalar.const(value.value & ((1 << 8 * size) - 1))
    limit = (1 << 8 * size) - 1
    if value.umax <= limit:
        return value
    if size == 4:
        return truncate(value)
    return build((value.value & limit, value.mask & limit))


def store(env: Env, register: int, off: int, size: int, value: Value, *, strict: bool) -> None:
    """Let a store happen; `value` is ``None`` for bytes of which nothing is known.

    Raises:
        Refused: the pointer is none, or does not allow it.
    """
    _access(env, register, off, size, "write", value, strict=strict)


def _access(
    env: Env, register: int, off: int, size: int, access: Access, value: Value, *, strict: bool
) -> Scalar | Pointer | None:
    pointer = env.state.registers[register]
    kind = pointer.kind if isinstance(pointer, Pointer) and not pointer.or_null else None
    if isinstance(pointer, Pointer):
        check_alignment(env, pointer, off, size, strict=strict)
    else:
        pointer = Pointer(PointerKind.MEMORY)  # refused below: it has no kind
    unknown = scalar.of_width(8 * size)
    match kind:
        case PointerKind.STACK:
            stack.check_bounds(env, register, off, size, access)
            if access == "read":
                return stack.read(env, register, pointer, off, size)
            stack.write(env, pointer, off, size, value)
            return None
        case PointerKind.MAP_VALUE:
            check_map_value(env, register, pointer, off, size, access)
            return unknown
        case PointerKind.MAP_KEY:
            if access == "write":
                message = f"write to change key R{register} not allowed"
                raise env.refuse(EACCES, "check_mem_access", message)
            check_map_key(env, register, pointer, off, size)
            return unknown
        case PointerKind.CTX:
            _check_ctx(env, register, pointer, off, size)
            return unknown
        case PointerKind.MAP:
            return _read_map_struct(env, register, pointer, off, size, access)
        case PointerKind.MEMORY:
            if access == "write":
                message = f"R{register} cannot write into rdonly_mem"
                raise env.refuse(EACCES, "check_mem_access", message)
            check_region(env, register, pointer, off, size, pointer.size)
            return unknown
        case PointerKind.RECORD:
            check_region(env, register, pointer, off, size, pointer.size)
            return unknown
        case PointerKind.BTF:
            function = "check_ptr_to_btf_access"
            if off + pointer.off < 0:
                message = (
                    f"R{register} is ptr_{pointer.type_name} invalid negative access:"
                    f" off={off + pointer.off}"
                )
                raise env.refuse(EACCES, function, message)
            if access == "write":
                raise env.refuse(EACCES, function, "only read is supported")
            message = f"the model does not follow {pointer.word} pointers"
            raise env.refuse(EACCES, "check_ptr_to_btf_access", message)
    word = describe(env.state.registers[register])
    raise env.refuse(EACCES, "check_mem_access", f"R{register} invalid mem access '{word}'")


def check_alignment(env: Env, pointer: Pointer, off: int, size: int, *, strict: bool) -> None:
    """Check the alignment of an access where it matters: on the stack, and for atomics."""
    if size == 1 or not (strict or env.strict_alignment or pointer.kind is PointerKind.STACK):
        return
    variable = pointer.variable
    total = pointer.off + off
    if (variable.value + total | variable.mask) % size:
        name = _ALIGNED_NAMES.get(pointer.kind, "")
        bits, fixed = env.offset_of(pointer)
        places = [tnum.text(bits), str(off)]
        if not env.facts.folds_offsets:
            places.insert(1, str(fixed))
        message = f"misaligned {name}access off {'+'.join(places)} size {size}"
        raise env.refuse(EACCES, "check_generic_ptr_alignment", message)


def check_no_offset(env: Env, register: int, pointer: Pointer, *, fixed_allowed: bool) -> None:
    """Check that a pointer was not moved (``__check_ptr_off_reg``).

    Raises:
        Refused: EACCES.
    """
    function, name = "__check_ptr_off_reg", pointer.word
    if pointer.var is not None and env.facts.folds_offsets:
        bits = tnum.text(env.offset_of(pointer)[0])
        raise env.refuse(EACCES, function, f"variable {name} access var_off={bits} disallowed")
    if pointer.off < 0:
        message = f"negative offset {name} ptr R{register} off={pointer.off} disallowed"
        raise env.refuse(EACCES, function, message)
    if pointer.off and not fixed_allowed:
        message = f"dereference of modified {name} ptr R{register} off={pointer.off} disallowed"
        raise env.refuse(EACCES, function, message)
    if pointer.var is not None:
        bits = f"({pointer.var.value:#x}; {pointer.var.mask:#x})"
        raise env.refuse(EACCES, function, f"variable {name} access var_off={bits} disallowed")


def _check_ctx(env: Env, register: int, pointer: Pointer, off: int, size: int) -> None:
    is_free = env.facts.moves_context
    if is_free:
        check_region(env, register, pointer, off, size, MAX_CTX_OFFSET)
        off += pointer.off + pointer.variable.umax
    else:
        check_no_offset(env, register, pointer, fixed_allowed=False)
    if not 0 <= off < MAX_CTX_OFFSET or (off % size and not is_free):
        message = f"invalid bpf_context access off={off} size={size}"
        raise env.refuse(EACCES, "check_ctx_access", message)
    env.max_ctx_offset = max(env.max_ctx_offset, off + size)


def check_map_key(env: Env, register: int, pointer: Pointer, off: int, size: int) -> None:
    """Check an access to the key of a map that a callback gets.

    Raises:
        Refused: EACCES.
    """
    assert pointer.map is not None  # noqa: S101 - a map key has a map
    check_region(env, register, pointer, off, size, pointer.map.attributes.key_size)


def check_map_value(
    env: Env,
    register: int,
    pointer: Pointer,
    off: int,
    size: int,
    access: Access,
    *,
    zero_allowed: bool = False,
) -> None:
    """Check an access to the value of a map (``check_map_access_type``, ``check_map_access``).

    Raises:
        Refused: EACCES.
    """
    assert pointer.map is not None  # noqa: S101 - a map value has a map
    given = pointer.map.attributes
    forbidden = MapFlag.RDONLY_PROG if access == "write" else MapFlag.WRONLY_PROG
    if given.flags & forbidden:
        verb = "write into" if access == "write" else "read from"
        message = (
            f"{verb} map forbidden, value_size={given.value_size} off={pointer.off + off}"
            f" size={size}"
        )
        raise env.refuse(EACCES, "check_map_access_type", message)
    check_region(env, register, pointer, off, size, given.value_size, zero_allowed=zero_allowed)


def check_region(
    env: Env,
    register: int,
    pointer: Pointer,
    off: int,
    size: int,
    region_size: int,
    *,
    zero_allowed: bool = False,
) -> None:
    """Check that an access lies in a region of known size (``check_mem_region_access``).

    Raises:
        Refused: EACCES.
    """
    function, variable = "check_mem_region_access", pointer.variable
    if env.facts.folds_offsets:
        variable = total_offset(pointer)
    else:
        off += pointer.off
    low, high = off + variable.smin, off + variable.umax
    too_far = not -(1 << 31) <= low < 1 << 31
    if variable.smin < 0 and (variable.smin == S64_MIN or too_far or low < 0):
        message = (
            f"R{register} min value is negative, either use unsigned index or do a if (index >=0)"
            " check."
        )
        raise env.refuse(EACCES, function, message)
    what, name = _REGIONS.get(pointer.kind, ("memory", "mem_size"))

    def check(at: int, end: str) -> None:
        if at >= 0 and (size > 0 or zero_allowed) and at + size <= region_size:
            return
        detail = f"invalid access to {what}, {name}={region_size} off={at} size={size}"
        summary = f"R{register} {end} value is outside of the allowed memory range"
        raise env.refuse(EACCES, function, f"{detail}\n{summary}")

    check(low, "min")
    if variable.umax >= MAX_VAR_OFF:
        message = f"R{register} unbounded memory access, make sure to bounds check any such access"
        raise env.refuse(EACCES, function, message)
    check(high, "max")


def _read_map_struct(
    env: Env, register: int, pointer: Pointer, off: int, size: int, access: Access
) -> Scalar | Pointer:
    """Read a field of ``struct bpf_map`` as the profile's kernel has it."""
    function = "check_ptr_to_map_access"
    assert pointer.map is not None  # noqa: S101 - a map pointer has a map
    struct = _STRUCTS.get(pointer.map.type)
    if struct is None:
        message = f"map_ptr access not supported for map type {pointer.map.attributes.type}"
        raise env.refuse(ENOTSUPP, function, message)
    if not env.rights.perfmon:
        message = f"'struct {struct}' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN"
        raise env.refuse(EPERM, function, message)
    if off < 0:
        message = f"R{register} is {struct} invalid negative access: off={off}"
        raise env.refuse(EACCES, function, message)
    if access != "read":
        raise env.refuse(EACCES, function, f"only read from {struct} is supported")
    return _walk(env, struct, off, size)


def _walk(env: Env, struct: str, off: int, size: int) -> Scalar | Pointer:
    """Find the field of a map's struct that is read (``btf_struct_walk``)."""
    walk, before = "btf_struct_walk", None
    fields = env.map_fields(is_array=struct == "bpf_array")
    end = fields[-1].offset + fields[-1].size
    if struct == "bpf_array" and off + size > end:
        message = f"access beyond struct {struct} at off {off} size {size}"
        raise env.refuse(EACCES, walk, message)
    for field in fields:
        if field.offset + field.size <= off:
            before = field
            continue
        if off < field.offset:
            break
        inside, start = off - field.base, field.offset - field.base
        if field.struct_size and inside + size > field.struct_size:
            message = f"access beyond struct {field.struct} at off {inside} size {size}"
            raise env.refuse(EACCES, walk, message)
        if field.is_pointer and (off != field.offset or size != field.size):
            message = (
                f"cannot access ptr member {field.name} with moff {start} in struct {field.struct}"
                f" with off {inside} size {size}"
            )
            raise env.refuse(EACCES, walk, message)
        if inside + size > start + field.size:
            message = (
                f"access beyond the end of member {field.name} (mend:{start + field.size}) in"
                f" struct {field.struct} with off {inside} size {size}"
            )
            raise env.refuse(EACCES, walk, message)
        if field.is_pointer:
            return Pointer(PointerKind.BTF, type_name=field.name)
        return scalar.of_width(8 * size)
    else:
        message = f"the model does not know the fields of struct {struct} at off {off} size {size}"
        raise env.refuse(EACCES, walk, message)
    inside = off - before.base if before is not None and before.struct == field.struct else off
    message = f"struct {field.struct} doesn't have field at offset {inside}"
    raise env.refuse(EINVAL, walk, message)
