"""Pins: names in bpffs that keep a map, a program or a link.

The model has no file system: any absolute path is one of bpffs.

Source: kernel/bpf/inode.c ``bpf_obj_pin_user``, ``bpf_obj_get_user``.

Example:
    >>> pin(state, fd, "/sys/fs/bpf/counts")
    >>> open_pinned(state, "/sys/fs/bpf/counts")
    7
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, EPERM

from bpfseal.kernel.model.links import ModelLink
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState


def pin(state: KernelState, fd: int, path: str) -> None:
    """Pin what a fd refers to (BPF_OBJ_PIN).

    Raises:
        KernelError: EBADF, EINVAL for an object that cannot be pinned, EEXIST, EPERM for a path
            that is not in bpffs.
    """
    source = "kernel/bpf/inode.c bpf_obj_pin_user"
    item = state.fds.get(fd)
    if not isinstance(item, (ModelMap, ModelProgram, ModelLink)):
        raise refusal(EINVAL, source, f"{item.label} cannot be pinned")
    if not path.startswith("/"):
        raise refusal(EPERM, source, f"{path} is not in bpffs")
    if path in state.pins:
        raise refusal(EEXIST, source, f"{path} is there already")
    item.hold()
    state.pins[path] = item


def open_pinned(state: KernelState, path: str) -> int:
    """Return a fd of what is pinned at a path (BPF_OBJ_GET).

    Raises:
        KernelError: ENOENT.
    """
    if path not in state.pins:
        raise refusal(ENOENT, "kernel/bpf/inode.c bpf_obj_get_user", f"no {path}")
    return state.fds.install(state.pins[path])
