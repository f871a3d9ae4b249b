"""Objects by their ids: which there are, and a fd of one.

Source: kernel/bpf/syscall.c ``bpf_obj_get_next_id``, ``bpf_map_get_fd_by_id`` and its neighbours;
kernel/bpf/btf.c ``btf_get_fd_by_id``.

Example:
    >>> next_id(state.maps, 0)
    1
    >>> open_by_id(state, state.maps, 1)
    4
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL, ENOENT
from typing import Final

from bpfseal.bpf.uapi import MapFlag
from bpfseal.kernel.model.attributes import Attr
from bpfseal.kernel.model.btf_objects import VMLINUX_BTF_ID, kernel_btf_object
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

_MAX_ID: Final = 0x7FFFFFFF
_SOURCE: Final = "kernel/bpf/syscall.c bpf_obj_get_next_id"


def next_id(known: Sequence[KernelObject], start: int) -> int:
    """Return the lowest id above `start`.

    Raises:
        KernelError: EINVAL for a `start` that no id can be above, ENOENT behind the last one.
    """
    if start >= _MAX_ID:
        raise refusal(EINVAL, _SOURCE, f"no id is above {start}")
    found = min((item.id for item in known if item.alive and item.id > start), default=0)
    if not found:
        raise refusal(ENOENT, _SOURCE, f"no object has an id above {start}")
    return found


def open_by_id(state: KernelState, known: Sequence[KernelObject], wanted: int) -> int:
    """Return a new fd of an object.

    Raises:
        KernelError: ENOENT.
    """
    found = next((item for item in known if item.alive and item.id == wanted), None)
    if found is None:
        source = "kernel/bpf/syscall.c, the commands *_GET_FD_BY_ID"
        raise refusal(ENOENT, source, f"no object with the id {wanted}")
    return state.fds.install(found)


def next_map(attr: Attr) -> int:
    """BPF_MAP_GET_NEXT_ID.

    Raises:
        KernelError: EINVAL, ENOENT.
    """
    return _give_next(attr, attr.state.maps)


def next_program(attr: Attr) -> int:
    """BPF_PROG_GET_NEXT_ID.

    Raises:
        KernelError: EINVAL, ENOENT.
    """
    return _give_next(attr, attr.state.programs)


def next_link(attr: Attr) -> int:
    """BPF_LINK_GET_NEXT_ID.

    Raises:
        KernelError: EINVAL, ENOENT.
    """
    return _give_next(attr, attr.state.links)


def _give_next(attr: Attr, known: Sequence[KernelObject]) -> int:
    attr.give_back("next_id", next_id(known, attr["start_id"]))
    return 0


def next_btf(attr: Attr) -> int:
    """BPF_BTF_GET_NEXT_ID: the kernel's own BTF is the first.

    Raises:
        KernelError: EINVAL, ENOENT.
    """
    start = attr["start_id"]
    found = VMLINUX_BTF_ID if start < VMLINUX_BTF_ID else next_id(attr.state.btfs, start)
    attr.give_back("next_id", found)
    return 0


def open_map(attr: Attr) -> int:
    """BPF_MAP_GET_FD_BY_ID; in the model a fd with fewer rights has them all.

    Raises:
        KernelError: EINVAL for flags that are none or exclude each other, ENOENT.
    """
    if attr["open_flags"] not in (0, MapFlag.RDONLY, MapFlag.WRONLY):
        source = "kernel/bpf/syscall.c bpf_get_file_flag"
        raise refusal(EINVAL, source, f"open_flags {attr['open_flags']:#x}")
    return open_by_id(attr.state, attr.state.maps, attr["map_id"])


def open_program(attr: Attr) -> int:
    """BPF_PROG_GET_FD_BY_ID.

    Raises:
        KernelError: ENOENT.
    """
    return open_by_id(attr.state, attr.state.programs, attr["prog_id"])


def open_link(attr: Attr) -> int:
    """BPF_LINK_GET_FD_BY_ID.

    Raises:
        KernelError: ENOENT.
    """
    return open_by_id(attr.state, attr.state.links, attr["link_id"])


def open_btf(attr: Attr) -> int:
    """BPF_BTF_GET_FD_BY_ID, also for the kernel's own.

    Raises:
        KernelError: ENOENT.
    """
    if attr["btf_id"] == VMLINUX_BTF_ID:
        return attr.state.fds.install(kernel_btf_object())
    return open_by_id(attr.state, attr.state.btfs, attr["btf_id"])
