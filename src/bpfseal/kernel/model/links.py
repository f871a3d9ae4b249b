"""Links: what LINK_CREATE and RAW_TRACEPOINT_OPEN make, kept as records. Nothing is attached.

Source: kernel/bpf/syscall.c ``link_create``, ``bpf_raw_tp_link_attach``.

Example:
    >>> kernel.sys_bpf(Cmd.RAW_TRACEPOINT_OPEN, attributes)
    7
    >>> kernel.links
    (LinkFacts(program='on_exec', attach_type=0, target='sched_process_exec'),)
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import Final

from bpfseal.bpf.uapi import ProgType
from bpfseal.kernel.model.attributes import Attr
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.program import LinkFacts, ModelProgram
from bpfseal.kernel.model.refusal import refusal

_NAME_SIZE: Final = 128
"""Bytes of a tracepoint's name that are read (``bpf_raw_tp_link_attach``)."""

_BY_NAME: Final = frozenset({ProgType.RAW_TRACEPOINT, ProgType.RAW_TRACEPOINT_WRITABLE})
_BY_PROGRAM: Final = frozenset({ProgType.TRACING, ProgType.LSM, ProgType.EXT})


class ModelLink(KernelObject):
    """A link, which keeps its program."""

    def __init__(self, program: ModelProgram, attach_type: int, target: str) -> None:
        super().__init__()
        self._program = program
        self.facts = LinkFacts(program.name, attach_type, target)
        program.hold()

    @property
    def label(self) -> str:
        """``link of`` the program, and its target."""
        return f"link of {self.facts.program} to {self.facts.target}"

    def release(self) -> None:
        """Let go of the program."""
        self._program.drop()


def link_create(attr: Attr) -> int:
    """Make a link and return its fd."""
    program = attr.state.fds.get_as(attr["prog_fd"], ModelProgram)
    target = program.attach_target or f"fd {attr['target_fd']}"
    return _install(attr, ModelLink(program, attr["attach_type"], target))


def raw_tracepoint_open(attr: Attr) -> int:
    """Make a link to a raw tracepoint, or to what the program was loaded for, and return its fd."""
    source = "kernel/bpf/syscall.c bpf_raw_tp_link_attach"
    program = attr.state.fds.get_as(attr["prog_fd"], ModelProgram)
    if program.type in _BY_NAME:
        name = attr.up_to("name", _NAME_SIZE).split(b"\0", 1)[0]
        if not name:
            raise refusal(EFAULT, source, "the name of the tracepoint cannot be read")
        target = name.decode("utf-8", "backslashreplace")
    elif program.type in _BY_PROGRAM and not attr["name"]:
        target = program.attach_target
    else:
        raise refusal(EINVAL, source, f"{program.type.name} with a name, or of another type")
    return _install(attr, ModelLink(program, program.attributes.expected_attach_type, target))


def _install(attr: Attr, link: ModelLink) -> int:
    attr.state.links.append(link.facts)
    return attr.state.fds.install(link)
