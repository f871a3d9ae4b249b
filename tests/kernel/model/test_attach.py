"""Attach types, attach targets, licences and links."""

from __future__ import annotations

from errno import EBADF, EINVAL, ENOENT

import pytest

from bpfseal.bpf.insn import call_helper, exit_insn, mov64_imm
from bpfseal.bpf.uapi import AttachType, LinkType, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model import links
from bpfseal.kernel.model.attach import MAX_TYPE
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import ENOTSUPP
from bpfseal.kernel.model.state import KernelState
from support.btf_writer import BtfWriter

from .inner import Inner

PROGRAM = [mov64_imm(0, 0), exit_insn()]
A, P = AttachType, ProgType


def kernel() -> BtfWriter:
    """Types of a kernel: ids 2 to 7 are what programs attach to."""
    btf = BtfWriter()
    proto = btf.add_func_proto(0, [])
    for name in ("vfs_read", "bpf_lsm_file_open", "bpf_iter_task"):
        btf.add_func(name, proto)
    btf.add_typedef("btf_trace_sched_switch", proto)
    btf.add_typedef("other", proto)
    btf.add_struct("sched_ext_ops", 8, [("select_cpu", 0, 0)])
    return btf


FUNCTION, HOOK, ITERATOR, TRACEPOINT, TYPEDEF, OPS = range(2, 8)


def inner(type_: ProgType, attach: int = 0, target: int = 0, **changes: object) -> Inner:
    given = {"type": type_, "expected_attach_type": attach, "attach_btf_id": target, **changes}
    return Inner(PROGRAM, kernel_btf=kernel(), changes=given)


@pytest.mark.parametrize(
    ("type_", "attach", "target", "name"),
    [
        (P.TRACING, A.TRACE_FENTRY, FUNCTION, "vfs_read"),
        (P.TRACING, A.TRACE_RAW_TP, TRACEPOINT, "btf_trace_sched_switch"),
        (P.TRACING, A.TRACE_ITER, ITERATOR, "bpf_iter_task"),
        (P.LSM, A.LSM_MAC, HOOK, "bpf_lsm_file_open"),
        (P.STRUCT_OPS, 0, OPS, "sched_ext_ops"),
        (P.XDP, A.XDP, 0, ""),
        (P.KPROBE, 0, 0, ""),
    ],
)
def test_what_a_program_attaches_to(type_: ProgType, attach: int, target: int, name: str) -> None:
    assert inner(type_, attach, target).load().attach_target == name


@pytest.mark.parametrize(
    ("type_", "attach", "target", "message"),
    [
        (P.TRACING, A.TRACE_FENTRY, 0, "Tracing programs must provide btf_id"),
        (P.TRACING, A.TRACE_FENTRY, 99, "attach_btf_id 99 is invalid"),
        (P.TRACING, A.TRACE_FENTRY, OPS, f"attach_btf_id {OPS} is not a function"),
        (P.TRACING, A.TRACE_RAW_TP, FUNCTION, f"attach_btf_id {FUNCTION} is not a typedef"),
        (
            P.TRACING,
            A.TRACE_RAW_TP,
            TYPEDEF,
            f"attach_btf_id {TYPEDEF} points to wrong type name other",
        ),
        (P.TRACING, A.TRACE_ITER, FUNCTION, "vfs_read is no iterator"),
        (P.TRACING, A.XDP, FUNCTION, "expected_attach_type 37"),
        (
            P.LSM,
            A.LSM_MAC,
            FUNCTION,
            f"attach_btf_id {FUNCTION} points to wrong type name vfs_read",
        ),
        (P.EXT, 0, FUNCTION, "Cannot replace kernel functions"),
        (P.STRUCT_OPS, 1, OPS, "attach to invalid member idx 1 of struct sched_ext_ops"),
        (P.XDP, A.XDP, FUNCTION, "attach_btf_id for a type that attaches to no function"),
        (P.TRACING, A.TRACE_FENTRY, MAX_TYPE + 1, f"attach_btf_id {MAX_TYPE + 1}"),
        (P.CGROUP_SOCK_ADDR, A.XDP, 0, "expected_attach_type 37"),
        (P.SK_LOOKUP, 0, 0, "expected_attach_type 0"),
    ],
)
def test_what_no_program_attaches_to_is_einval(
    type_: ProgType, attach: int, target: int, message: str
) -> None:
    error = inner(type_, attach, target).refusal()
    assert (error.errno, error.message) == (EINVAL, message)


def test_a_struct_that_has_no_operations_is_enotsupp() -> None:
    assert inner(P.STRUCT_OPS, 0, FUNCTION).refusal().errno == ENOTSUPP
    assert inner(P.STRUCT_OPS).refusal().errno == ENOTSUPP


def test_hooks_and_operations_are_for_gpl_programs() -> None:
    for type_, attach, target in ((P.LSM, A.LSM_MAC, HOOK), (P.STRUCT_OPS, 0, OPS)):
        error = inner(type_, attach, target, license="Proprietary").refusal()
        assert error.errno == EINVAL
        assert "must have a GPL compatible license" in error.log


def test_helpers_that_are_for_gpl_programs_only() -> None:
    stack_trace = [call_helper(27), mov64_imm(0, 0), exit_insn()]
    given = Inner(stack_trace, changes={"license": "Proprietary"})
    log = "cannot call GPL-restricted function from non-GPL compatible program"
    assert given.refusal().log == log
    assert Inner(stack_trace).load()
    behind_the_end = [mov64_imm(0, 0), exit_insn()]
    assert Inner(behind_the_end, changes={"license": "Proprietary"}).load()


def test_the_fd_of_a_target_is_a_program_or_the_kernels_btf() -> None:
    assert inner(P.EXT, 0, 1, attach_fd=99).refusal().errno == EINVAL
    assert inner(P.EXT, 0, 1, attach_fd=3).refusal().errno == ENOTSUPP  # its own BTF
    assert inner(P.TRACING, A.TRACE_FENTRY, attach_fd=0).refusal().errno == EINVAL


def test_a_function_of_another_program() -> None:
    state = inner(P.XDP, A.XDP).state()
    first = inner(P.XDP, A.XDP)
    first.load(state)
    fd = max(state.fds.listing())
    given = inner(P.EXT, 0, first.main, attach_fd=fd)
    assert given.load(state).attach_target == "main.main"
    again = inner(P.EXT, 0, first.main, attach_fd=max(state.fds.listing()))
    with pytest.raises(KernelError, match="Cannot recursively attach"):
        again.load(state)
    nothing = inner(P.EXT, 0, 1, attach_fd=fd)
    with pytest.raises(KernelError, match="doesn't exist"):
        nothing.load(state)


def link(given: Inner, attach: int, target: int = 0) -> links.ModelLink:
    state = given.state()
    given.load(state)
    fd = links.create_link(state, max(state.fds.listing()), attach, target)
    return state.fds.get_as(fd, links.ModelLink)


@pytest.mark.parametrize(
    ("given", "attach", "kind", "target"),
    [
        (inner(P.XDP, A.XDP), A.XDP, LinkType.XDP, "fd 2"),
        (inner(P.SCHED_CLS), A.TCX_INGRESS, LinkType.TCX, "fd 2"),
        (inner(P.KPROBE), A.PERF_EVENT, LinkType.PERF_EVENT, "fd 2"),
        (
            inner(P.KPROBE, A.TRACE_KPROBE_MULTI),
            A.TRACE_KPROBE_MULTI,
            LinkType.KPROBE_MULTI,
            "fd 2",
        ),
        (inner(P.CGROUP_DEVICE), A.CGROUP_DEVICE, LinkType.CGROUP, "fd 2"),
    ],
    ids=lambda value: value.name if isinstance(value, A) else "",
)
def test_links(given: Inner, attach: int, kind: LinkType, target: str) -> None:
    made = link(given, attach, 2)
    assert (made.type, made.facts.target) == (kind, target)


@pytest.mark.parametrize(
    ("given", "attach"),
    [
        (inner(P.XDP, A.XDP), A.PERF_EVENT),
        (inner(P.SOCKET_FILTER), A.XDP),
        (inner(P.KPROBE), A.TRACE_KPROBE_MULTI),
        (inner(P.KPROBE, A.TRACE_KPROBE_MULTI), A.PERF_EVENT),
        (inner(P.TRACING, A.TRACE_FENTRY, FUNCTION), A.TRACE_FEXIT),
        (inner(P.CGROUP_SOCK, A.CGROUP_INET4_POST_BIND), A.CGROUP_INET6_POST_BIND),
    ],
)
def test_links_of_another_attach_type_are_einval(given: Inner, attach: int) -> None:
    with pytest.raises(KernelError) as refused:
        link(given, attach)
    assert refused.value.errno == EINVAL


def test_functions_and_tracepoints_are_attached_as_they_were_loaded() -> None:
    made = link(inner(P.TRACING, A.TRACE_FENTRY, FUNCTION), A.TRACE_FENTRY)
    assert (made.type, made.facts.target) == (LinkType.TRACING, "vfs_read")
    made = link(inner(P.TRACING, A.TRACE_RAW_TP, TRACEPOINT), A.TRACE_RAW_TP)
    assert (made.type, made.facts.target) == (LinkType.RAW_TRACEPOINT, "btf_trace_sched_switch")
    with pytest.raises(KernelError) as refused:
        link(inner(P.TRACING, A.TRACE_FENTRY, FUNCTION), A.TRACE_FENTRY, 2)
    assert refused.value.errno == EINVAL


def opened(given: Inner, name: str | None) -> tuple[KernelState, int]:
    state = given.state()
    program = given.load(state)
    return state, links.open_raw_tracepoint(state, program, name)


def test_raw_tracepoints_by_name() -> None:
    state, fd = opened(inner(P.RAW_TRACEPOINT), "sched_switch")
    made = state.fds.get_as(fd, links.ModelLink)
    assert made.facts.target == "sched_switch"
    links.detach_link(state, fd)
    assert not made.is_attached
    with pytest.raises(KernelError) as refused:
        opened(inner(P.RAW_TRACEPOINT), "nothing")
    assert refused.value.errno == ENOENT


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (inner(P.TRACING, A.TRACE_FENTRY, FUNCTION), "sched_switch"),
        (inner(P.XDP, A.XDP), None),
        (inner(P.TRACING, A.TRACE_ITER, ITERATOR), None),
    ],
)
def test_what_is_no_raw_tracepoint_is_einval(given: Inner, name: str | None) -> None:
    with pytest.raises(KernelError) as refused:
        opened(given, name)
    assert refused.value.errno == EINVAL


def test_a_link_keeps_its_program() -> None:
    state, fd = opened(inner(P.RAW_TRACEPOINT), "sched_switch")
    program_fd = next(n for n, what in state.fds.listing().items() if what == "prog main")
    program = state.fds.get_as(program_fd, ModelProgram)
    state.fds.close(program_fd)
    assert "link of main to sched_switch" in state.fds.listing().values()
    assert program.alive
    state.fds.close(fd)
    gone = not program.alive
    assert gone
    with pytest.raises(KernelError) as refused:
        links.create_link(state, program_fd, A.XDP)
    assert refused.value.errno == EBADF
