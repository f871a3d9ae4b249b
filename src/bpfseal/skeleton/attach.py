"""How each kind of program is attached: a table, and what each of its rows does.

A program's type and attach type choose the row; its section name, as in the C source, says to what
it is attached where that was not fixed at load time: ``kprobe/do_unlinkat``,
``tp/sched/sched_switch``. Arguments of `Program.attach` say it otherwise.

Source: ``section_defs`` and the ``attach_*`` functions in tools/lib/bpf/libbpf.c.

Example:
    >>> how_to_attach(ProgType.XDP, AttachType.XDP).arguments
    ('interface', 'flags')
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.bundle.derivation import open_attach_point
from bpfseal.errors import UsageError
from bpfseal.kernel.protocol import MapKernel
from bpfseal.loader.model import ProgramEntry
from bpfseal.skeleton import probes
from bpfseal.skeleton.arguments import Arguments, MissingArgumentError, UncoveredError
from bpfseal.skeleton.target import Target

_T, _A = ProgType, AttachType


@dataclass(frozen=True, slots=True)
class Attachment:
    """A row of the table.

    Attributes:
        types: the program types.
        attach_types: the attach types; none given means all.
        attach: attaches and returns the link's fd.
        arguments: the names of the arguments that it takes.
    """

    types: Collection[ProgType]
    attach_types: Collection[AttachType]
    attach: Callable[[Target, Arguments], int]
    arguments: tuple[str, ...] = ()

    def suits(self, prog_type: int, attach_type: int) -> bool:
        """Whether this is the row of a program."""
        return prog_type in self.types and (
            not self.attach_types or attach_type in self.attach_types
        )


def _raw_tracepoint(target: Target, given: Arguments) -> int:
    name = given.require("tracepoint", target.place)
    given.finish()
    return target.kernel.raw_tracepoint_open(target.fd, name)


def _fixed_at_load(target: Target, given: Arguments) -> int:
    cookie = given.number("cookie")
    given.finish()
    if cookie:
        return target.link(kind="tracing", numbers={"cookie": cookie})
    return target.kernel.raw_tracepoint_open(target.fd, "")


def _iterator(target: Target, given: Arguments) -> int:
    """``union bpf_iter_link_info``: a map's fd; a cgroup's order, fd, id; or a task's tid, pid."""
    with ExitStack() as opened:
        info = b""
        if (chosen := given.take("map")) is not None:
            info = struct.pack("=I", chosen if isinstance(chosen, int) else chosen.fileno())
        elif given.has("cgroup"):
            fd = opened.enter_context(given.file("cgroup"))
            info = struct.pack("=IIQ", given.number("order", _SELF_ONLY), fd, 0)
        elif (pid := given.number("pid")) or (tid := given.number("tid")):
            info = struct.pack("=III", 0, pid, 0) if pid else struct.pack("=III", tid, 0, 0)
        given.finish()
        if not info:
            return target.link()
        return target.link(
            kind="iter", numbers={"iter_info_len": len(info)}, data={"iter_info": info}
        )


_SELF_ONLY: Final = 1
"""BPF_CGROUP_ITER_SELF_ONLY."""


def _interface(target: Target, given: Arguments) -> int:
    index, flags = given.interface(), given.number("flags")
    given.finish()
    return target.link(index, flags=flags)


_NO_DIRECTION: Final = ("cgroup/skb", "")
"""Sections that do not say whether packets come or go; where the attach type does, it counts."""


def _cgroup(target: Target, given: Arguments) -> int:
    attach_type = target.entry.attach_type
    if target.entry.type == ProgType.CGROUP_SKB and target.entry.section in _NO_DIRECTION:
        attach_type = given.require("attach_type")
    with given.file("cgroup") as fd:
        flags = given.number("flags")
        given.finish()
        return target.link(fd, attach_type=attach_type, flags=flags)


def _namespace(target: Target, given: Arguments) -> int:
    with given.file("namespace", "/proc/self/ns/net") as fd:
        given.finish()
        return target.link(fd)


def _sockets(target: Target, given: Arguments) -> int:
    with given.file("sockets") as fd:
        given.finish()
        return target.link(fd)


def _netfilter(target: Target, given: Arguments) -> int:
    numbers = {
        "pf": given.number("family", _IPV4),
        "hooknum": given.require("hook"),
        "priority": given.number("priority"),
        "flags": given.number("flags"),
    }
    given.finish()
    return target.link(kind="netfilter", numbers=numbers)


_IPV4: Final = 2
"""NFPROTO_IPV4."""

ATTACHMENTS: Final = (
    Attachment(
        (_T.RAW_TRACEPOINT, _T.RAW_TRACEPOINT_WRITABLE), (), _raw_tracepoint, ("tracepoint",)
    ),
    Attachment(
        (_T.TRACING,),
        (_A.TRACE_RAW_TP, _A.TRACE_FENTRY, _A.TRACE_FEXIT, _A.MODIFY_RETURN, _A.TRACE_FSESSION),
        _fixed_at_load,
        ("cookie",),
    ),
    Attachment((_T.LSM,), (_A.LSM_MAC,), _fixed_at_load, ("cookie",)),
    Attachment((_T.LSM,), (_A.LSM_CGROUP,), _cgroup, ("cgroup", "flags")),
    Attachment(
        (_T.TRACING,), (_A.TRACE_ITER,), _iterator, ("map", "cgroup", "order", "pid", "tid")
    ),
    Attachment((_T.XDP,), (_A.XDP,), _interface, ("interface", "flags")),
    Attachment(
        (_T.SCHED_CLS,),
        (_A.TCX_INGRESS, _A.TCX_EGRESS, _A.NETKIT_PRIMARY, _A.NETKIT_PEER),
        _interface,
        ("interface", "flags"),
    ),
    Attachment(
        (
            _T.CGROUP_SKB,
            _T.CGROUP_SOCK,
            _T.CGROUP_SOCK_ADDR,
            _T.CGROUP_SOCKOPT,
            _T.CGROUP_DEVICE,
            _T.CGROUP_SYSCTL,
            _T.SOCK_OPS,
        ),
        (),
        _cgroup,
        ("cgroup", "flags", "attach_type"),
    ),
    Attachment((_T.SK_LOOKUP, _T.FLOW_DISSECTOR), (), _namespace, ("namespace",)),
    Attachment((_T.SK_MSG, _T.SK_SKB), (), _sockets, ("sockets",)),
    Attachment(
        (_T.NETFILTER,), (_A.NETFILTER,), _netfilter, ("family", "hook", "priority", "flags")
    ),
    Attachment(
        (_T.TRACEPOINT,), (), probes.attach_tracepoint, ("tracepoint", "category", "cookie")
    ),
    Attachment((_T.PERF_EVENT,), (), probes.attach_event, ("event", "cookie")),
    Attachment(
        (_T.KPROBE,),
        (_A.TRACE_KPROBE_MULTI, _A.TRACE_KPROBE_SESSION),
        probes.attach_kprobe_multi,
        ("functions", "is_return"),
    ),
    Attachment(
        (_T.KPROBE,),
        (_A.TRACE_UPROBE_MULTI, _A.TRACE_UPROBE_SESSION),
        probes.attach_uprobe_multi,
        ("path", "functions", "offsets", "pid", "is_return"),
    ),
    Attachment(
        (_T.KPROBE,),
        (),
        probes.attach_probe,
        ("function", "path", "offset", "pid", "is_return", "cookie"),
    ),
)
"""All kinds of programs that are attached by a link; the first row that suits is the one."""


def how_to_attach(prog_type: int, attach_type: int) -> Attachment | None:
    """Return the row of a program, ``None`` for one that no link attaches."""
    return next((row for row in ATTACHMENTS if row.suits(prog_type, attach_type)), None)


def names_attach_point(entry: ProgramEntry) -> bool:
    """Whether only a program's section, which no signature covers, says to what it is attached."""
    return open_attach_point(entry) and entry.type != ProgType.CGROUP_SKB


def uncovered(entries: Iterable[ProgramEntry]) -> UsageError:
    """Return the error that says whose attach points no signature covers."""
    told = ", ".join(f"program {each.name} says {each.section or 'nothing'}" for each in entries)
    return UncoveredError(
        f"not covered by the signature: the attach point of {told}",
        hint="give it: programs.NAME.attach(function=..., tracepoint=..., ...), "
        "or believe the bundle: attach(trust_sections=True)",
    )


def attach(
    kernel: MapKernel,
    fd: int,
    entry: ProgramEntry,
    arguments: dict[str, object],
    *,
    trust_sections: bool,
) -> int:
    """Attach a program and return the link's fd.

    Args:
        kernel: where it is loaded.
        fd: the program.
        entry: its facts.
        arguments: what `how_to_attach` names.
        trust_sections: believe the section where only it says how the program is attached. Without
            it arguments have to say all that.

    Raises:
        UncoveredError: the section says what the arguments leave open, and is not believed.
        MissingArgumentError: an argument that this kind of program needs is not there.
        UsageError: one that it does not have, or a program that no link attaches.
        CapabilityError: this machine has no such interface, tracepoint or file.
        KernelError: the kernel refused.
    """
    kind = ProgType(entry.type).name
    row = how_to_attach(entry.type, entry.attach_type)
    if row is None:
        raise UsageError(
            f"program {entry.name} of type {kind} is not attached by a link",
            hint="use its fd, or run it: run(data)",
        )
    given = Arguments(entry.name, kind, arguments)
    if trust_sections or not open_attach_point(entry):
        return row.attach(Target(kernel, fd, entry), given)
    if probes.says_return(entry.section) and not given.has("is_return"):
        raise uncovered([entry])
    try:
        return row.attach(Target(kernel, fd, replace(entry, section=_UNKNOWN)), given)
    except MissingArgumentError:
        if not names_attach_point(entry):
            raise
        raise uncovered([entry]) from None


_UNKNOWN: Final = ""
"""In place of a section that is not believed."""
