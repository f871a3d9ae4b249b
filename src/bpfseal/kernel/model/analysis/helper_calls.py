"""Calls of helpers: may the program call this one, and are the arguments what it takes.

Source: ``check_helper_call``, ``check_func_arg`` and ``check_mem_size_reg`` in
kernel/bpf/verifier.c.

Example:
    >>> call(env, Helper.SYS_CLOSE)
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Final

from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.kernel.model.analysis import callbacks, memory_access, precision, scalar, stack
from bpfseal.kernel.model.analysis.branches import narrowed
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.helper_names import exists, helper_name
from bpfseal.kernel.model.analysis.helper_table import (
    CALLBACKS,
    NEEDS_PERFMON,
    NEVER_RUN,
    OTHERS,
    PROTOTYPES,
    RING_HELPERS,
    Argument,
    Prototype,
    Result,
)
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.stack import Access
from bpfseal.kernel.model.analysis.state import State
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value, describe
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.refusal import ENOTSUPP

MAX_SIZE: Final = 1 << 29
"""BPF_MAX_VAR_SIZ (include/linux/bpf_verifier.h)."""

_MEMORY_TYPES: Final = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"
_MEMORY_KINDS: Final = frozenset(
    {
        PointerKind.STACK,
        PointerKind.MAP_VALUE,
        PointerKind.MAP_KEY,
        PointerKind.MEMORY,
        PointerKind.RECORD,
    }
)
_WRITTEN: Final = frozenset({Argument.MEMORY_OUT, Argument.MEMORY_OUT_OR_NULL})
_SIZES: Final = frozenset({Argument.SIZE, Argument.SIZE_OR_ZERO})
_MAX_ERRNO: Final = 4095
_SMALL_RESULTS: Final = frozenset(
    {
        Helper.PROBE_READ_STR,
        Helper.PROBE_READ_KERNEL_STR,
        Helper.PROBE_READ_USER_STR,
    }
)
"""Helpers that return a length or an errno (``do_refine_retval_range``)."""


_ELIDED: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
"""Types whose lookups by constant keys are never null (``can_elide_value_nullness``)."""

_TYPED: Final[dict[int, frozenset[MapType]]] = {
    Helper.TAIL_CALL: frozenset({MapType.PROG_ARRAY}),
    Helper.MAP_PUSH_ELEM: frozenset({MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER}),
}
"""The types of maps that some helpers are for (``check_map_func_compatibility``)."""

_WRITERS: Final = frozenset({Helper.MAP_UPDATE_ELEM, Helper.MAP_DELETE_ELEM})


def argument_count(number: int) -> int:
    """Return how many registers a helper reads, 5 for one that the model lacks."""
    prototype = PROTOTYPES.get(number)
    return 5 if prototype is None else len(prototype.arguments)


def call(env: Env, number: int) -> State | None:
    """Check a call and let it change the state.

    Returns:
        The state in which a function of the program begins that the helper calls, if it does.

    Raises:
        Refused: EINVAL for a helper that the program may not call, ENOTSUPP for one that the model
            lacks, EACCES for arguments of wrong types.
    """
    prototype = _prototype(env, number)
    called = _Call(env, number, prototype)
    for position, argument in enumerate(prototype.arguments):
        called.check(1 + position, argument)
    called.check_map_kind()
    waiting = callbacks.enter(env, env.index, number) if number in CALLBACKS else None
    result = called.result()
    called.give_back()
    frame = env.state.frame
    frame.scrub()
    frame.registers[0] = result
    return waiting


def _prototype(env: Env, number: int) -> Prototype:
    function = "check_helper_call"
    name = f"{helper_name(number)}#{number}"
    if not exists(number):
        raise env.refuse(EINVAL, function, f"invalid func {name}")
    prototype = PROTOTYPES.get(number)
    if number in NEEDS_PERFMON and not env.rights.perfmon:
        raise env.refuse(EINVAL, function, f"program of this type cannot use helper {name}")
    if prototype is None:
        if number in OTHERS:
            raise env.refuse(ENOTSUPP, function, f"the model does not have the helper {name}")
        raise env.refuse(EINVAL, function, f"program of this type cannot use helper {name}")
    if prototype.gpl_only and not env.is_gpl:
        message = "cannot call GPL-restricted function from non-GPL compatible program"
        raise env.refuse(EINVAL, function, message)
    return prototype


class _Call:
    """The arguments of one call, checked one after the other."""

    def __init__(self, env: Env, number: int, prototype: Prototype) -> None:
        self._env = env
        self._number = number
        self._prototype = prototype
        self._map: ModelMap | None = None
        self._key: int | None = None
        self._size = 0
        self._given_back = 0

    def check(self, register: int, argument: Argument) -> None:
        """Check one argument (``check_func_arg``)."""
        value = self._env.read_register(register)
        match argument:
            case Argument.ANYTHING:
                message = f"R{register} leaks addr into helper function"
                self._env.check_no_leak(value, "check_func_arg", message)
            case Argument.MAP:
                self._require(register, value, {PointerKind.MAP}, "map_ptr")
                assert isinstance(value, Pointer)  # noqa: S101 - required above
                self._map = value.map
            case Argument.FUNCTION:
                self._require(register, value, {PointerKind.FUNCTION}, "func")
                assert isinstance(value, Pointer)  # noqa: S101 - required above
                memory_access.check_no_offset(self._env, register, value, fixed_allowed=False)
            case Argument.STACK_OR_NULL:
                if value != scalar.ZERO:
                    self._require(register, value, {PointerKind.STACK}, "fp")
            case Argument.NUMBER:
                if not isinstance(value, Scalar) and self._env.facts.counts_rounds_in_numbers:
                    message = f"R{register} type={describe(value)} expected=scalar"
                    raise self._env.refuse(EACCES, "check_reg_type", message)
            case Argument.CONTEXT:
                self._require(register, value, {PointerKind.CTX}, "ctx")
            case Argument.RECORD_SIZE:
                self._check_record_size(register, value)
            case Argument.RECORD:
                self._check_record(register, value)
            case Argument.STRING:
                self._check_string(register, value)
            case Argument.SIZE | Argument.SIZE_OR_ZERO:
                zero = argument is Argument.SIZE_OR_ZERO
                before = self._prototype.arguments[register - 2]
                access: Access = "write" if before in _WRITTEN else "read"
                check_sized_memory(self._env, register - 1, access, zero_allowed=zero)
            case _:
                self._check_memory(register, value, argument)

    def _require(
        self, register: int, value: Scalar | Pointer, kinds: set[PointerKind], words: str
    ) -> None:
        if isinstance(value, Pointer) and value.kind in kinds and not value.or_null:
            return
        message = f"R{register} type={describe(value)} expected={words}"
        raise self._env.refuse(EACCES, "check_reg_type", message)

    def _check_memory(self, register: int, value: Scalar | Pointer, argument: Argument) -> None:
        """Check memory whose size the map tells, or the helper; a sized one waits for its size."""
        or_null = argument in (Argument.MEMORY_OR_NULL, Argument.MEMORY_OUT_OR_NULL)
        if or_null and isinstance(value, Scalar) and value.value == value.mask == 0:
            return
        kinds, words = set(_MEMORY_KINDS), _MEMORY_TYPES
        if self._env.facts.moves_context:
            kinds.add(PointerKind.CTX)
            words += ", ctx"
        self._require(register, value, kinds, words)
        assert isinstance(value, Pointer)  # noqa: S101 - required above
        if or_null or argument in (Argument.MEMORY, Argument.MEMORY_OUT):
            return
        if argument is Argument.LONG_OUT:
            check_memory(self._env, register, 8, "write", zero_allowed=False)
            memory_access.check_alignment(self._env, value, 0, 8, strict=True)
            return
        if self._map is None:
            message = "invalid map_ptr to access map->key"
            raise self._env.refuse(EACCES, "check_func_arg", message)
        given = self._map.attributes
        if argument is Argument.KEY:
            check_memory(self._env, register, given.key_size, "read", zero_allowed=False)
            self._key = stack.constant_key(self._env, value, given.key_size)
        else:
            check_memory(self._env, register, given.value_size, "read", zero_allowed=False)

    def _check_string(self, register: int, value: Scalar | Pointer) -> None:
        """Check a string that cannot change (``check_reg_const_str``)."""
        self._require(register, value, {PointerKind.MAP_VALUE}, "map_value")
        assert isinstance(value, Pointer)  # noqa: S101 - required above
        used, function = value.map, "check_reg_const_str"
        assert used is not None  # noqa: S101 - a map value has a map
        is_constant = used.attributes.flags & MapFlag.RDONLY_PROG and used.frozen
        if not is_constant or used.writers:
            message = f"R{register} does not point to a readonly map'"
            raise self._env.refuse(EACCES, function, message)
        if value.var is not None:
            raise self._env.refuse(EACCES, function, f"R{register} is not a constant address'")
        size = used.attributes.value_size
        memory_access.check_map_value(self._env, register, value, 0, size - value.off, "read")
        text = used.lookup(bytes(used.attributes.key_size)) or b""
        if b"\0" not in text[value.off :]:
            raise self._env.refuse(EINVAL, function, "string is not zero-terminated")

    def _check_record_size(self, register: int, value: Scalar | Pointer) -> None:
        if not isinstance(value, Scalar):
            message = f"R{register} type={describe(value)} expected=scalar"
            raise self._env.refuse(EACCES, "check_reg_type", message)
        if not value.is_const:
            if self._env.facts.has_const_arguments:
                raise self._env.refuse(EINVAL, "process_const_arg", f"R{register} is not a const")
            message = f"R{register} is not a known constant'"
            raise self._env.refuse(EACCES, "check_func_arg", message)
        precision.mark_register(self._env, register)
        self._size = value.value

    def _check_record(self, register: int, value: Scalar | Pointer) -> None:
        """Check what is given back (``check_func_arg_reg_off`` with OBJ_RELEASE)."""
        self._require(register, value, {PointerKind.RECORD}, "ringbuf_mem")
        assert isinstance(value, Pointer)  # noqa: S101 - required above
        if value.off:
            what = "release func or trusted arg to kfunc"
            message = f"R{register} must have zero offset when passed to {what}"
            raise self._env.refuse(EINVAL, "check_func_arg_reg_off", message)
        memory_access.check_no_offset(self._env, register, value, fixed_allowed=False)
        self._given_back = value.reference

    def give_back(self) -> None:
        """Make numbers of all pointers to what was given back (``release_reference``)."""
        gone, env = self._given_back, self._env
        if not gone:
            return
        env.state.give_back(gone)
        left = scalar.UNKNOWN if env.rights.perfmon else None
        env.state.replace_values(
            lambda value: left if isinstance(value, Pointer) and value.reference == gone else value
        )

    def check_map_kind(self) -> None:
        """Check that the model knows the type of the map, and that the program may write it."""
        used = self._map
        name = f"{helper_name(self._number)}#{self._number}"
        if used is not None and self._number in _TYPED:
            self._check_typed(used, name)
        if self._number in NEVER_RUN:
            message = f"the model does not have the helper {name}"
            raise self._env.refuse(ENOTSUPP, "check_helper_call", message)
        if used is None:
            return
        is_ring = used.type is MapType.RINGBUF
        if self._number == Helper.FOR_EACH_MAP_ELEM and is_ring:
            message = "callback function not allowed for map"
            raise self._env.refuse(ENOTSUPP, "set_map_elem_callback_state", message)
        if is_ring != (self._number in RING_HELPERS):
            message = f"cannot pass map_type {used.attributes.type} into func {name}"
            raise self._env.refuse(EINVAL, "check_map_func_compatibility", message)
        is_open = used.is_open_to_programs and (
            self._number != Helper.FOR_EACH_MAP_ELEM or used.type is MapType.ARRAY
        )
        if not is_ring and not is_open:
            message = f"the model does not look into {used.type.name} maps from programs"
            raise self._env.refuse(ENOTSUPP, "check_map_func_compatibility", message)
        if self._number in _WRITERS and used.attributes.flags & MapFlag.RDONLY_PROG:
            raise self._env.refuse(EACCES, "record_func_map", "write into map forbidden")

    def _check_typed(self, used: ModelMap, name: str) -> None:
        """Check a map of a helper that is for some types only."""
        if used.type in _TYPED[self._number]:
            return
        if self._number == Helper.TAIL_CALL:
            message = self._env.facts.no_prog_array_log
            raise self._env.refuse(EINVAL, "record_func_key", message)
        message = f"cannot pass map_type {used.attributes.type} into func {name}"
        raise self._env.refuse(EINVAL, "check_map_func_compatibility", message)

    def result(self) -> Value:
        """Return what the helper leaves in r0."""
        if self._prototype.result is Result.NOTHING:
            return None
        if self._prototype.result is Result.RECORD_OR_NULL:
            return self._record()
        if self._prototype.result is Result.TASK:
            return Pointer(PointerKind.BTF, type_name="task_struct")
        if self._prototype.result is Result.MAP_VALUE_OR_NULL:
            return self._map_value()
        if self._number in _SMALL_RESULTS:
            size = self._env.state.registers[2]
            assert isinstance(size, Scalar)  # noqa: S101 - checked as a size
            limited = (-_MAX_ERRNO, size.smax)
            return narrowed(scalar.UNKNOWN, 64, (0, scalar.UNKNOWN.umax), limited)
        if self._number == Helper.GET_SMP_PROCESSOR_ID:
            return scalar.of_unsigned(0, self._env.profile.possible_cpus - 1)
        return scalar.UNKNOWN

    def _record(self) -> Pointer:
        env = self._env
        env.fresh_id()  # the kernel counts one for a pointer that may be null, and then another
        reference = env.fresh_id()
        env.state.references += ((reference, env.index),)
        return Pointer(
            PointerKind.RECORD, id=reference, or_null=True, size=self._size, reference=reference
        )

    def _map_value(self) -> Pointer:
        """Return the pointer that a lookup gives: not null for an index that an array has."""
        used = self._map
        assert used is not None  # noqa: S101 - the first argument of a lookup
        elides = self._env.facts.elides_null_checks and used.type in _ELIDED
        known = elides and self._key is not None and self._key < used.attributes.max_entries
        fresh = 0 if known else self._env.fresh_id()
        return Pointer(PointerKind.MAP_VALUE, map=used, id=fresh, or_null=not known)


def check_memory(
    env: Env,
    register: int,
    size: int,
    access: Access,
    *,
    zero_allowed: bool,
    is_exact: bool = True,
) -> None:
    """Check that a helper may use so many bytes (``check_helper_mem_access``).

    Raises:
        Refused: EACCES or EINVAL.
    """
    pointer = env.state.registers[register]
    kind = pointer.kind if isinstance(pointer, Pointer) and not pointer.or_null else None
    if kind is PointerKind.STACK:
        stack.use_range(env, register, size, access, zero_allowed=zero_allowed, is_exact=is_exact)
        return
    assert isinstance(pointer, Pointer) or pointer is not None  # noqa: S101 - it was read
    if isinstance(pointer, Pointer) and kind is PointerKind.MAP_VALUE:
        memory_access.check_map_value(
            env, register, pointer, 0, size, access, zero_allowed=zero_allowed
        )
        return
    if isinstance(pointer, Pointer) and kind is PointerKind.MAP_KEY:
        if access == "write":
            message = f"R{register} cannot write into map_key"
            raise env.refuse(EACCES, "check_helper_mem_access", message)
        memory_access.check_map_key(env, register, pointer, 0, size)
        return
    if isinstance(pointer, Pointer) and kind is PointerKind.RECORD:
        memory_access.check_region(
            env, register, pointer, 0, size, pointer.size, zero_allowed=zero_allowed
        )
        return
    if isinstance(pointer, Pointer) and kind is PointerKind.MEMORY:
        if access == "write":
            message = f"R{register} cannot write into rdonly_mem"
            raise env.refuse(EACCES, "check_helper_mem_access", message)
        memory_access.check_region(
            env, register, pointer, 0, size, pointer.size, zero_allowed=zero_allowed
        )
        return
    if isinstance(pointer, Pointer) and kind is PointerKind.CTX:
        if size:
            memory_access.load(env, register, size - 1, 1)
            return
        if zero_allowed:
            return
        raise env.refuse(EACCES, "check_helper_mem_access", "invalid zero-sized read")
    if zero_allowed and size == 0 and pointer == scalar.ZERO:
        return
    message = f"R{register} type={describe(pointer)} expected=fp"
    raise env.refuse(EACCES, "check_helper_mem_access", message)


def check_sized_memory(env: Env, register: int, access: Access, *, zero_allowed: bool) -> None:
    """Check memory whose size is in the register behind it (``check_mem_size_reg``).

    Raises:
        Refused: EACCES or EINVAL.
    """
    size_register = register + 1
    function = "check_mem_size_reg"
    size = env.read_register(size_register)
    if not isinstance(size, Scalar):
        message = f"R{size_register} type={describe(size)} expected=scalar"
        raise env.refuse(EACCES, "check_reg_type", message)
    if size.smin < 0:
        message = f"R{size_register} min value is negative, either use unsigned or 'var &= const'"
        raise env.refuse(EACCES, function, message)
    if size.umin == 0 and not zero_allowed:
        message = f"R{size_register} invalid zero-sized read: u64=[{size.umin},{size.umax}]"
        raise env.refuse(EACCES, function, message)
    if size.umax >= MAX_SIZE:
        message = (
            f"R{size_register} unbounded memory access, use 'var &= const' or 'if (var < const)'"
        )
        raise env.refuse(EACCES, function, message)
    check_memory(
        env,
        register,
        size.umax,
        access,
        zero_allowed=zero_allowed,
        is_exact=size.is_const,
    )
    precision.mark_register(env, size_register)
