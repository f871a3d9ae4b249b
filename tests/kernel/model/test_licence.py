"""Which helpers only programs with a GPL-compatible licence may call."""

from __future__ import annotations

import os
from types import MappingProxyType

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.insn import call_helper, encode_insns, exit_insn
from bpfseal.bpf.uapi import AttachType, Cmd, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model.analysis.helper_names import exists, helper_name
from bpfseal.kernel.model.licence import GPL_ONLY, is_gpl_only

# Prototypes with gpl_only, by the file that they are in.
SOURCES = MappingProxyType(
    {
        "kernel/trace/bpf_trace.c": """
            probe_read probe_read_str probe_read_user probe_read_user_str probe_read_kernel
            probe_read_kernel_str probe_write_user override_return trace_printk trace_vprintk
            seq_printf seq_write seq_printf_btf perf_event_read perf_event_read_value
            perf_event_output perf_prog_read_value read_branch_records get_branch_snapshot
            get_current_task get_current_task_btf task_pt_regs get_func_ip
        """,
        "kernel/bpf/helpers.c": """
            snprintf copy_from_user_task timer_init timer_set_callback timer_start timer_cancel
        """,
        "kernel/bpf/stackmap.c": "get_stackid get_stack",
        "net/core/filter.c": """
            skb_output xdp_output fib_lookup check_mtu tcp_check_syncookie tcp_gen_syncookie
            tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 tcp_raw_check_syncookie_ipv4
            tcp_raw_check_syncookie_ipv6
        """,
        "drivers/media/rc/bpf-lirc.c": "rc_repeat rc_keydown rc_pointer_rel",
    }
)


def test_the_helpers_are_those_of_the_kernels_prototypes() -> None:
    wanted = {f"bpf_{name}" for names in SOURCES.values() for name in names.split()}
    assert {helper_name(number) for number in GPL_ONLY} == wanted


def test_a_stack_id_is_for_all_programs_on_perf_events() -> None:
    """kernel/bpf/stackmap.c bpf_get_stackid_proto_pe."""
    assert is_gpl_only(27, ProgType.KPROBE)
    assert not is_gpl_only(27, ProgType.PERF_EVENT)
    assert is_gpl_only(67, ProgType.PERF_EVENT)


def test_the_traced_function_is_for_all_programs_on_many_functions() -> None:
    """kernel/trace/bpf_trace.c bpf_get_func_ip_proto_kprobe_multi, _uprobe_multi."""
    assert is_gpl_only(173, ProgType.KPROBE)
    assert is_gpl_only(173, ProgType.TRACING, AttachType.TRACE_FENTRY)
    assert not is_gpl_only(173, ProgType.KPROBE, AttachType.TRACE_UPROBE_MULTI)


@pytest.mark.skipif(os.geteuid() != 0, reason="loading programs needs root")
@pytest.mark.parametrize("program_type", [ProgType.SYSCALL, ProgType.SOCKET_FILTER])
def test_this_machines_kernel_agrees(program_type: ProgType) -> None:
    """The licence is looked at before the arguments, and after whether the type has the helper."""
    answers = {number: _log(program_type, number) for number in filter(exists, range(1, 250))}
    refused = {number for number, log in answers.items() if "GPL-restricted" in log}
    allowed = {
        number
        for number, log in answers.items()
        if not any(text in log for text in ("GPL-restricted", "cannot use helper", "unknown func"))
    }
    assert refused
    assert all(is_gpl_only(number, program_type) for number in refused)
    assert not any(is_gpl_only(number, program_type) for number in allowed)


def _log(program_type: ProgType, helper: int) -> str:
    """Load a call of a helper without a licence, and return the verifier's log."""
    log, licence = Buffer(bytes(4096)), Buffer(b"\0")
    code = encode_insns([call_helper(helper), exit_insn()])
    insns = Buffer(code)
    packed = attr.PROG_LOAD.pack(
        prog_type=program_type,
        insn_cnt=2,
        insns=insns.address,
        license=licence.address,
        prog_flags=ProgFlag.SLEEPABLE if program_type is ProgType.SYSCALL else 0,
        log_level=1,
        log_size=4096,
        log_buf=log.address,
    )
    try:
        os.close(bpf(Cmd.PROG_LOAD, bytearray(packed)))
    except KernelError:
        return log.data.split(b"\0", 1)[0].decode()
    return ""
