"""Links: what LINK_CREATE and RAW_TRACEPOINT_OPEN make, kept as records. Nothing is attached.

Source: kernel/bpf/syscall.c ``link_create``, ``bpf_prog_attach_check_attach_type``,
``bpf_raw_tp_link_attach``, ``bpf_tracing_prog_attach``.

Example:
    >>> create_link(state, program, AttachType.XDP, target=2).facts
    LinkFacts(program='drop', attach_type=37, target='fd 2')
"""

from __future__ import annotations

from errno import EINVAL, ENOENT
from types import MappingProxyType
from typing import Final

from bpfseal.bpf.uapi import AttachType, LinkType, MapType, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model.attach import ATTACH_TYPES, TRACEPOINT_PREFIX
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.program import LinkFacts, ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

_A, _P = AttachType, ProgType

NAMED_TRACEPOINTS: Final = frozenset({_P.RAW_TRACEPOINT, _P.RAW_TRACEPOINT_WRITABLE})
"""Types that attach to a raw tracepoint by its name."""

TRACEPOINT_NAME_SIZE: Final = 128
"""Bytes of a tracepoint's name that are read (``bpf_raw_tp_link_attach``)."""

_BY_LOAD: Final = frozenset({_P.TRACING, _P.LSM, _P.EXT})
_AS_LOADED: Final = frozenset(
    {_P.CGROUP_SOCK, _P.CGROUP_SOCK_ADDR, _P.CGROUP_SOCKOPT, _P.SK_LOOKUP, _P.TRACING, _P.LSM}
)
"""Types whose links have the attach type that they were loaded for."""

_OWN_WAY: Final = frozenset({_A.TRACE_ITER, _A.LSM_CGROUP})
"""Attach types of `_BY_LOAD` that attach to no function."""

_FUNCTIONS: Final = frozenset(
    {_A.TRACE_FENTRY, _A.TRACE_FEXIT, _A.TRACE_FSESSION, _A.MODIFY_RETURN}
)
_TCX: Final = frozenset({_A.TCX_INGRESS, _A.TCX_EGRESS})
_NETKIT: Final = frozenset({_A.NETKIT_PRIMARY, _A.NETKIT_PEER})
_KPROBES: Final = frozenset({_A.TRACE_KPROBE_MULTI, _A.TRACE_KPROBE_SESSION})
_UPROBES: Final = frozenset({_A.TRACE_UPROBE_MULTI, _A.TRACE_UPROBE_SESSION})

_TYPES: Final = MappingProxyType(
    {
        _P.SOCK_OPS: frozenset({_A.CGROUP_SOCK_OPS}),
        _P.CGROUP_DEVICE: frozenset({_A.CGROUP_DEVICE}),
        _P.CGROUP_SYSCTL: frozenset({_A.CGROUP_SYSCTL}),
        _P.CGROUP_SKB: ATTACH_TYPES[_P.CGROUP_SKB],
        _P.FLOW_DISSECTOR: frozenset({_A.FLOW_DISSECTOR}),
        _P.SK_MSG: frozenset({_A.SK_MSG_VERDICT}),
        _P.SK_SKB: frozenset(
            {_A.SK_SKB_STREAM_PARSER, _A.SK_SKB_STREAM_VERDICT, _A.SK_SKB_VERDICT}
        ),
        _P.XDP: frozenset({_A.XDP}),
        _P.SCHED_CLS: _TCX | _NETKIT,
        _P.NETFILTER: frozenset({_A.NETFILTER}),
        _P.PERF_EVENT: frozenset({_A.PERF_EVENT}),
        _P.TRACEPOINT: frozenset({_A.PERF_EVENT}),
        _P.KPROBE: frozenset({_A.PERF_EVENT}) | _KPROBES | _UPROBES,
    }
)
"""The attach types of links of each program type."""

_LINK_TYPES: Final = MappingProxyType(
    {
        _P.CGROUP_SKB: LinkType.CGROUP,
        _P.CGROUP_SOCK: LinkType.CGROUP,
        _P.CGROUP_SOCK_ADDR: LinkType.CGROUP,
        _P.CGROUP_SOCKOPT: LinkType.CGROUP,
        _P.CGROUP_DEVICE: LinkType.CGROUP,
        _P.CGROUP_SYSCTL: LinkType.CGROUP,
        _P.SOCK_OPS: LinkType.CGROUP,
        _P.FLOW_DISSECTOR: LinkType.NETNS,
        _P.SK_LOOKUP: LinkType.NETNS,
        _P.SK_MSG: LinkType.SOCKMAP,
        _P.SK_SKB: LinkType.SOCKMAP,
        _P.XDP: LinkType.XDP,
        _P.SCHED_CLS: LinkType.TCX,
        _P.NETFILTER: LinkType.NETFILTER,
        _P.PERF_EVENT: LinkType.PERF_EVENT,
        _P.TRACEPOINT: LinkType.PERF_EVENT,
        _P.KPROBE: LinkType.PERF_EVENT,
        _P.EXT: LinkType.TRACING,
    }
)


class ModelLink(KernelObject):
    """A link, which keeps its program.

    Attributes:
        program: the program; ``None`` for the link of a STRUCT_OPS map.
        type: the kind of link.
        facts: what is told of it.
        is_attached: it has not been detached.
    """

    def __init__(self, program: ModelProgram | None, kind: LinkType, facts: LinkFacts) -> None:
        super().__init__()
        self.program = program
        self.type = kind
        self.facts = facts
        self.is_attached = True
        if program is not None:
            program.hold()

    @property
    def label(self) -> str:
        """``link of`` the program, and its target."""
        return f"link of {self.facts.program} to {self.facts.target}"

    def release(self) -> None:
        """Let go of the program."""
        if self.program is not None:
            self.program.drop()


def create_link(
    state: KernelState, fd: int, attach_type: int, target: int = 0, target_btf_id: int = 0
) -> int:
    """Make a link (BPF_LINK_CREATE) and return its fd.

    Args:
        state: the kernel.
        fd: the program, or for `AttachType.STRUCT_OPS` the map.
        attach_type: an `AttachType`.
        target: a fd or the index of a network interface, as the attach type wants.
        target_btf_id: for EXT programs the function of another program than that of the load.

    Raises:
        KernelError: EBADF, EINVAL.
    """
    if attach_type == AttachType.STRUCT_OPS:
        used = state.fds.get_as(fd, ModelMap)
        if used.type is not MapType.STRUCT_OPS:
            raise _refuse("bpf_struct_ops_link_create", f"{used.label} is no STRUCT_OPS")
        facts = LinkFacts(used.name, attach_type, "")
        return _install(state, ModelLink(None, LinkType.STRUCT_OPS, facts))
    program = state.fds.get_as(fd, ModelProgram)
    _check_attach_type(program, attach_type)
    expected = program.attributes.expected_attach_type
    if program.type in _BY_LOAD and expected not in _OWN_WAY:
        if expected == AttachType.TRACE_RAW_TP:
            return open_raw_tracepoint(state, program, None)
        return _trace(state, program, target, target_btf_id)
    place = program.attach_target or f"fd {target}"
    kind = _link_type(program, attach_type)
    return _install(state, ModelLink(program, kind, LinkFacts(program.name, attach_type, place)))


def open_raw_tracepoint(state: KernelState, program: ModelProgram, name: str | None) -> int:
    """Make a link to a raw tracepoint, or to what the program was loaded for, and return its fd.

    Args:
        state: the kernel.
        program: the program.
        name: the tracepoint, ``None`` for what is fixed at load time.

    Raises:
        KernelError: EINVAL for a type that does not attach so or for a name too much, ENOENT for a
            tracepoint that the kernel does not have.
    """
    function = "bpf_raw_tp_link_attach"
    expected = program.attributes.expected_attach_type
    if program.type in _BY_LOAD:
        if name is not None:
            raise _refuse(function, f"{program.type.name} with a name")
        is_tracepoint = expected == AttachType.TRACE_RAW_TP
        if program.type is not ProgType.TRACING or not is_tracepoint:
            return _trace(state, program)
        target = program.attach_target
        kind = LinkType.RAW_TRACEPOINT
    elif program.type in NAMED_TRACEPOINTS:
        target, kind = name or "", LinkType.RAW_TRACEPOINT
        if state.btf.find(f"{TRACEPOINT_PREFIX}{target}", Kind.TYPEDEF) is None:
            source = f"kernel/bpf/syscall.c {function}"
            raise refusal(ENOENT, source, f"the kernel has no tracepoint {target}")
    else:
        raise _refuse(function, f"{program.type.name} attaches to no raw tracepoint")
    return _install(state, ModelLink(program, kind, LinkFacts(program.name, expected, target)))


def detach_link(state: KernelState, fd: int) -> None:
    """Detach a link while it is open (BPF_LINK_DETACH).

    Raises:
        KernelError: EBADF, EINVAL.
    """
    state.fds.get_as(fd, ModelLink).is_attached = False


def _refuse(function: str, message: str) -> KernelError:
    return refusal(EINVAL, f"kernel/bpf/syscall.c {function}", message)


def _check_attach_type(program: ModelProgram, attach_type: int) -> None:
    function = "bpf_prog_attach_check_attach_type"
    expected = program.attributes.expected_attach_type
    if program.type is ProgType.EXT:
        return
    if program.type in _AS_LOADED:
        fits = attach_type == expected
    else:
        fits = attach_type in _TYPES.get(program.type, frozenset())
    multi = _KPROBES | _UPROBES
    if program.type is ProgType.KPROBE and {expected, attach_type} & multi:
        fits = attach_type == expected
    if not fits:
        raise _refuse(function, f"attach type {attach_type} for {program.type.name} of {expected}")


def _link_type(program: ModelProgram, attach_type: int) -> LinkType:
    if attach_type in _NETKIT:
        return LinkType.NETKIT
    if attach_type in _KPROBES:
        return LinkType.KPROBE_MULTI
    if attach_type in _UPROBES:
        return LinkType.UPROBE_MULTI
    if attach_type == AttachType.TRACE_ITER:
        return LinkType.ITER
    if attach_type == AttachType.LSM_CGROUP:
        return LinkType.CGROUP
    return _LINK_TYPES[program.type]


def _trace(
    state: KernelState, program: ModelProgram, target: int = 0, target_btf_id: int = 0
) -> int:
    """Attach to a function (``bpf_tracing_prog_attach``)."""
    function = "bpf_tracing_prog_attach"
    expected = program.attributes.expected_attach_type
    fits = {
        ProgType.TRACING: expected in _FUNCTIONS,
        ProgType.EXT: expected == 0,
        ProgType.LSM: expected == AttachType.LSM_MAC,
    }[program.type]
    if not fits:
        raise _refuse(function, f"expected_attach_type {expected}")
    if bool(target) != bool(target_btf_id):
        raise _refuse(function, "target_fd without target_btf_id, or the other way round")
    if target and program.type is not ProgType.EXT:
        raise _refuse(function, "only EXT programs take another target")
    place = program.attach_target
    if target:
        place = f"{state.fds.get_as(target, ModelProgram).name}.{target_btf_id}"
    facts = LinkFacts(program.name, expected, place)
    return _install(state, ModelLink(program, LinkType.TRACING, facts))


def _install(state: KernelState, link: ModelLink) -> int:
    state.links.append(link)
    link.id = len(state.links)
    return state.fds.install(link)
