"""ELF section names and the program type, attach type and flags that they stand for.

The names are those of libbpf 1.7 (``section_defs`` in tools/lib/bpf/libbpf.c). A name ending in
``+`` stands alone or with ``/something`` behind it.

Example:
    >>> find_section("fentry.s/do_unlinkat").type.name
    'TRACING'
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bpfseal.bpf.uapi import AttachType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind

MAPS_SECTION: Final = ".maps"
"""Where the definitions of maps lie."""


@dataclass(frozen=True, slots=True)
class SectionDef:
    """What a section name stands for.

    Attributes:
        name: the name or, with ``+`` at its end, the first part of it.
        type: the program type.
        attach_type: the expected attach type.
        flags: flags of BPF_PROG_LOAD.
        attach_btf: the rest of the name is a kernel function or hook, looked up in the kernel BTF.
    """

    name: str
    type: ProgType
    attach_type: int = 0
    flags: int = 0
    attach_btf: bool = False

    def matches(self, section: str) -> bool:
        """Whether a section name stands for this definition."""
        if not self.name.endswith("+"):
            return section == self.name
        stem = self.name[:-1]
        return section == stem or section.startswith(stem + "/")


_SLEEP = ProgFlag.SLEEPABLE
_FRAGS = ProgFlag.XDP_HAS_FRAGS
_T, _A = ProgType, AttachType


def _both(name: str, kind: ProgType, attach: int = 0, *, btf: bool = False) -> list[SectionDef]:
    """The plain and the sleepable form of a section name."""
    return [
        SectionDef(f"{name}+", kind, attach, 0, btf),
        SectionDef(f"{name}.s+", kind, attach, _SLEEP, btf),
    ]


def _named(kind: ProgType, **names: int) -> list[SectionDef]:
    """``cgroup/NAME`` sections of one program type, each with its attach type."""
    return [SectionDef(f"cgroup/{name}", kind, attach) for name, attach in names.items()]


SECTIONS: tuple[SectionDef, ...] = (
    SectionDef("socket", _T.SOCKET_FILTER),
    SectionDef("sk_reuseport/migrate", _T.SK_REUSEPORT, _A.SK_REUSEPORT_SELECT_OR_MIGRATE),
    SectionDef("sk_reuseport", _T.SK_REUSEPORT, _A.SK_REUSEPORT_SELECT),
    SectionDef("kprobe+", _T.KPROBE),
    SectionDef("kretprobe+", _T.KPROBE),
    *_both("uprobe", _T.KPROBE),
    *_both("uretprobe", _T.KPROBE),
    SectionDef("kprobe.multi+", _T.KPROBE, _A.TRACE_KPROBE_MULTI),
    SectionDef("kretprobe.multi+", _T.KPROBE, _A.TRACE_KPROBE_MULTI),
    SectionDef("kprobe.session+", _T.KPROBE, _A.TRACE_KPROBE_SESSION),
    *_both("uprobe.multi", _T.KPROBE, _A.TRACE_UPROBE_MULTI),
    *_both("uretprobe.multi", _T.KPROBE, _A.TRACE_UPROBE_MULTI),
    *_both("uprobe.session", _T.KPROBE, _A.TRACE_UPROBE_SESSION),
    SectionDef("ksyscall+", _T.KPROBE),
    SectionDef("kretsyscall+", _T.KPROBE),
    # USDT programs attach through uprobe_multi links on kernels that have them.
    *_both("usdt", _T.KPROBE, _A.TRACE_UPROBE_MULTI),
    SectionDef("tc/ingress", _T.SCHED_CLS, _A.TCX_INGRESS),
    SectionDef("tc/egress", _T.SCHED_CLS, _A.TCX_EGRESS),
    SectionDef("tcx/ingress", _T.SCHED_CLS, _A.TCX_INGRESS),
    SectionDef("tcx/egress", _T.SCHED_CLS, _A.TCX_EGRESS),
    SectionDef("tc", _T.SCHED_CLS),
    SectionDef("classifier", _T.SCHED_CLS),
    SectionDef("action", _T.SCHED_ACT),
    SectionDef("netkit/primary", _T.SCHED_CLS, _A.NETKIT_PRIMARY),
    SectionDef("netkit/peer", _T.SCHED_CLS, _A.NETKIT_PEER),
    *_both("tracepoint", _T.TRACEPOINT),
    *_both("tp", _T.TRACEPOINT),
    *_both("raw_tracepoint", _T.RAW_TRACEPOINT),
    *_both("raw_tp", _T.RAW_TRACEPOINT),
    SectionDef("raw_tracepoint.w+", _T.RAW_TRACEPOINT_WRITABLE),
    SectionDef("raw_tp.w+", _T.RAW_TRACEPOINT_WRITABLE),
    *_both("tp_btf", _T.TRACING, _A.TRACE_RAW_TP, btf=True),
    *_both("fentry", _T.TRACING, _A.TRACE_FENTRY, btf=True),
    *_both("fmod_ret", _T.TRACING, _A.MODIFY_RETURN, btf=True),
    *_both("fexit", _T.TRACING, _A.TRACE_FEXIT, btf=True),
    *_both("fsession", _T.TRACING, _A.TRACE_FSESSION, btf=True),
    *_both("fsession.multi", _T.TRACING, _A.TRACE_FSESSION_MULTI),
    *_both("fentry.multi", _T.TRACING, _A.TRACE_FENTRY_MULTI),
    *_both("fexit.multi", _T.TRACING, _A.TRACE_FEXIT_MULTI),
    SectionDef("freplace+", _T.EXT, attach_btf=True),
    *_both("lsm", _T.LSM, _A.LSM_MAC, btf=True),
    SectionDef("lsm_cgroup+", _T.LSM, _A.LSM_CGROUP, attach_btf=True),
    *_both("iter", _T.TRACING, _A.TRACE_ITER, btf=True),
    SectionDef("syscall", _T.SYSCALL, 0, _SLEEP),
    SectionDef("xdp.frags/devmap", _T.XDP, _A.XDP_DEVMAP, _FRAGS),
    SectionDef("xdp/devmap", _T.XDP, _A.XDP_DEVMAP),
    SectionDef("xdp.frags/cpumap", _T.XDP, _A.XDP_CPUMAP, _FRAGS),
    SectionDef("xdp/cpumap", _T.XDP, _A.XDP_CPUMAP),
    SectionDef("xdp.frags", _T.XDP, _A.XDP, _FRAGS),
    SectionDef("xdp", _T.XDP, _A.XDP),
    SectionDef("perf_event", _T.PERF_EVENT),
    SectionDef("lwt_in", _T.LWT_IN),
    SectionDef("lwt_out", _T.LWT_OUT),
    SectionDef("lwt_xmit", _T.LWT_XMIT),
    SectionDef("lwt_seg6local", _T.LWT_SEG6LOCAL),
    SectionDef("sockops", _T.SOCK_OPS, _A.CGROUP_SOCK_OPS),
    SectionDef("sk_skb/stream_parser", _T.SK_SKB, _A.SK_SKB_STREAM_PARSER),
    SectionDef("sk_skb/stream_verdict", _T.SK_SKB, _A.SK_SKB_STREAM_VERDICT),
    SectionDef("sk_skb/verdict", _T.SK_SKB, _A.SK_SKB_VERDICT),
    SectionDef("sk_skb", _T.SK_SKB),
    SectionDef("sk_msg", _T.SK_MSG, _A.SK_MSG_VERDICT),
    SectionDef("lirc_mode2", _T.LIRC_MODE2, _A.LIRC_MODE2),
    SectionDef("flow_dissector", _T.FLOW_DISSECTOR, _A.FLOW_DISSECTOR),
    SectionDef("cgroup_skb/ingress", _T.CGROUP_SKB, _A.CGROUP_INET_INGRESS),
    SectionDef("cgroup_skb/egress", _T.CGROUP_SKB, _A.CGROUP_INET_EGRESS),
    *_named(_T.CGROUP_SKB, skb=0),
    *_named(
        _T.CGROUP_SOCK,
        sock_create=_A.CGROUP_INET_SOCK_CREATE,
        sock_release=_A.CGROUP_INET_SOCK_RELEASE,
        sock=_A.CGROUP_INET_SOCK_CREATE,
        post_bind4=_A.CGROUP_INET4_POST_BIND,
        post_bind6=_A.CGROUP_INET6_POST_BIND,
    ),
    *_named(
        _T.CGROUP_SOCK_ADDR,
        bind4=_A.CGROUP_INET4_BIND,
        bind6=_A.CGROUP_INET6_BIND,
        connect4=_A.CGROUP_INET4_CONNECT,
        connect6=_A.CGROUP_INET6_CONNECT,
        connect_unix=_A.CGROUP_UNIX_CONNECT,
        sendmsg4=_A.CGROUP_UDP4_SENDMSG,
        sendmsg6=_A.CGROUP_UDP6_SENDMSG,
        sendmsg_unix=_A.CGROUP_UNIX_SENDMSG,
        recvmsg4=_A.CGROUP_UDP4_RECVMSG,
        recvmsg6=_A.CGROUP_UDP6_RECVMSG,
        recvmsg_unix=_A.CGROUP_UNIX_RECVMSG,
        getpeername4=_A.CGROUP_INET4_GETPEERNAME,
        getpeername6=_A.CGROUP_INET6_GETPEERNAME,
        getpeername_unix=_A.CGROUP_UNIX_GETPEERNAME,
        getsockname4=_A.CGROUP_INET4_GETSOCKNAME,
        getsockname6=_A.CGROUP_INET6_GETSOCKNAME,
        getsockname_unix=_A.CGROUP_UNIX_GETSOCKNAME,
    ),
    *_named(_T.CGROUP_SYSCTL, sysctl=_A.CGROUP_SYSCTL),
    *_named(_T.CGROUP_SOCKOPT, getsockopt=_A.CGROUP_GETSOCKOPT, setsockopt=_A.CGROUP_SETSOCKOPT),
    *_named(_T.CGROUP_DEVICE, dev=_A.CGROUP_DEVICE),
    *_both("struct_ops", _T.STRUCT_OPS),
    SectionDef("sk_lookup", _T.SK_LOOKUP, _A.SK_LOOKUP),
    SectionDef("netfilter", _T.NETFILTER, _A.NETFILTER),
)
"""All known section names. No two of them match the same name, so their order is for readers."""


@lru_cache(maxsize=1024)  # section names come from files: their number is not limited
def find_section(section: str) -> SectionDef | None:
    """Return what a section name stands for, or ``None`` for an unknown one."""
    return next((entry for entry in SECTIONS if entry.matches(section)), None)


def attach_lookup(attach_type: int) -> tuple[str, Kind]:
    """Return the prefix and BTF kind under which the kernel's BTF holds an attach target.

    Source: ``btf_get_kernel_prefix_kind`` in tools/lib/bpf/libbpf.c.
    """
    if attach_type == AttachType.TRACE_RAW_TP:
        return "btf_trace_", Kind.TYPEDEF
    if attach_type in (AttachType.LSM_MAC, AttachType.LSM_CGROUP):
        return "bpf_lsm_", Kind.FUNC
    if attach_type == AttachType.TRACE_ITER:
        return "bpf_iter_", Kind.FUNC
    return "", Kind.FUNC
