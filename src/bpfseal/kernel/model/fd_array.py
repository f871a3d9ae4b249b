"""The maps that a program may use: by ``fd_array``, by fd, and under which conditions.

With ``fd_array_cnt`` the kernel binds all of the array before it looks at an insn; without it an
insn names an entry, which is looked up then and there.

Source: kernel/bpf/verifier.c ``process_fd_array``, ``__add_used_map``,
``check_map_prog_compatibility``.

Example:
    >>> bind(state, program, has_digest=True)
    >>> map_at(state, program, 0).name
    '__loader.map'
"""

from __future__ import annotations

from errno import E2BIG, EACCES, EFAULT, EINVAL, EPROTO
from typing import Final

from bpfseal.bpf.uapi import SHA256_SIZE, ProgFlag
from bpfseal.errors import KernelError
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

MAX_USED_MAPS: Final = 64
"""MAX_USED_MAPS (include/linux/bpf_verifier.h)."""


def _refuse(number: int, function: str, log: str) -> KernelError:
    return refusal(number, f"kernel/bpf/verifier.c {function}", log, log=log)


def bind(state: KernelState, program: ModelProgram, *, has_digest: bool) -> None:
    """Bind the maps of ``fd_array_cnt``.

    Args:
        state: the kernel.
        program: the program.
        has_digest: its digest is computed already. Where it is not, no exclusive map fits: kernels
            compute it after this, and only for a signed program on 7.3 before.

    Raises:
        KernelError: the first fd that cannot be bound.
    """
    given = program.attributes
    count = given.fd_array_count
    if not count:
        return
    profile = state.profile
    if profile.verifies_in_verifier and not given.fd_array and not given.fd_array_is_cut:
        log = f"fd_array_cnt {count} without fd_array is invalid"
        raise _refuse(EINVAL, "process_fd_array", log)
    if profile.max_fd_array is not None and count > profile.max_fd_array:
        log = f"fd_array has too many entries ({count}, max {profile.max_fd_array})"
        raise _refuse(E2BIG, "process_fd_array_continuous", log)
    for index in range(count):
        if index >= len(given.fd_array):
            message = f"entry {index} of fd_array cannot be read"
            raise refusal(EFAULT, "kernel/bpf/verifier.c process_fd_array", message)
        _bind_fd(state, program, given.fd_array[index], has_digest=has_digest)


def _bind_fd(state: KernelState, program: ModelProgram, fd: int, *, has_digest: bool) -> None:
    """Bind one entry (``add_fd_from_fd_array``)."""
    item = state.fds.find(fd)
    if isinstance(item, ModelMap):
        use(state, program, item, has_digest=has_digest)
        if item not in program.bound:
            program.bound.append(item)
    elif isinstance(item, BtfObject):
        if state.profile.verifies_in_verifier and program.is_signed:
            raise _refuse(EACCES, "__add_used_btf", "signed program cannot bind any BTF")
    else:
        raise _not_a_map(state, fd, "add_fd_from_fd_array", "bpf_map or btf")


def map_at(state: KernelState, program: ModelProgram, index: int) -> ModelMap:
    """Return the map that an insn names by its index in ``fd_array``.

    Raises:
        KernelError: EPROTO without an array, EFAULT for an entry that cannot be read, EBADF or
            EINVAL for one that is no map, what `use` answers, and on kernels that verify a
            signature against bound maps: EINVAL for an index behind ``fd_array_cnt``, EACCES for
            a signed program without it.
    """
    given = program.attributes
    function = "fd_array_get_map_idx"
    if state.profile.verifies_in_verifier:
        count = given.fd_array_count
        if count and not 0 <= index < count:
            log = f"fd_idx {index & 0xFFFFFFFF} out of bounds, fd_array_cnt {count}"
            raise _refuse(EINVAL, function, log)
        if program.is_signed and not count:
            log = "signed program must bind maps via a continuous fd_array (fd_array_cnt)"
            raise _refuse(EACCES, function, log)
        if count and not isinstance(state.fds.find(given.fd_array[index]), ModelMap):
            raise _refuse(EINVAL, function, f"fd_idx {index} is not a map")
    if not given.fd_array and not given.fd_array_is_cut:
        raise _refuse(EPROTO, function, "fd_idx without fd_array is invalid")
    if not 0 <= index < len(given.fd_array):
        message = f"entry {index} of fd_array cannot be read"
        raise refusal(EFAULT, f"kernel/bpf/verifier.c {function}", message)
    return _map_of(state, program, given.fd_array[index])


def map_by_fd(state: KernelState, program: ModelProgram, fd: int) -> ModelMap:
    """Return the map that an insn names by its fd.

    Raises:
        KernelError: EBADF or EINVAL for no map, what `use` answers, and EINVAL for any fd in a
            signed program on kernels that verify a signature against bound maps.
    """
    if state.profile.verifies_in_verifier and program.is_signed:
        log = "signed program cannot reference a map by fd, only via fd_array index"
        raise _refuse(EINVAL, "check_and_resolve_insns", log)
    return _map_of(state, program, fd)


def _map_of(state: KernelState, program: ModelProgram, fd: int) -> ModelMap:
    item = state.fds.find(fd)
    if not isinstance(item, ModelMap):
        raise _not_a_map(state, fd, "add_used_map", "bpf_map")
    use(state, program, item, has_digest=True)
    return item


def _not_a_map(state: KernelState, fd: int, function: str, wanted: str) -> KernelError:
    """Return the refusal of a fd: EBADF for a closed one, EINVAL for one of another kind."""
    try:
        state.fds.get_as(fd, ModelMap)
    except KernelError as error:
        return _refuse(error.errno, function, f"fd {fd} is not pointing to valid {wanted}")
    raise AssertionError(fd)


def use(state: KernelState, program: ModelProgram, named: ModelMap, *, has_digest: bool) -> None:
    """Check that a program may use one map more.

    Raises:
        KernelError: E2BIG for one map too many, EACCES for one that is exclusive to another
            program, EINVAL for a type that a sleepable program may not use.
    """
    if named in program.bound or any(use.map is named for use in program.references):
        return
    if len(program.used_maps) >= MAX_USED_MAPS:
        log = f"The total number of maps per program has reached the limit of {MAX_USED_MAPS}"
        raise _refuse(E2BIG, "__add_used_map", log)
    function = "check_map_prog_compatibility"
    exclusive_to = named.attributes.excl_prog_hash
    digest = program.digest if has_digest else bytes(SHA256_SIZE)
    if exclusive_to is not None and exclusive_to != digest:
        raise _refuse(EACCES, function, "program's hash doesn't match map's excl_prog_hash")
    sleepable = bool(program.attributes.flags & ProgFlag.SLEEPABLE)
    if sleepable and named.type not in state.profile.sleepable_maps:
        log = "Sleepable programs can only use array, hash, ringbuf and local storage maps"
        raise _refuse(EINVAL, function, log)
