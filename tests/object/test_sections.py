"""Section names and what they stand for (``section_defs`` in tools/lib/bpf/libbpf.c)."""

from __future__ import annotations

import pytest

from bpfseal.bpf.uapi import AttachType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import UnsupportedError
from bpfseal.sections import SECTIONS, SectionDef, attach_lookup, find_section
from support.object_writer import ObjectWriter

OPEN = [entry for entry in SECTIONS if entry.name.endswith("+")]
CLOSED = [entry for entry in SECTIONS if not entry.name.endswith("+")]


def ids(entry: SectionDef) -> str:
    return entry.name


@pytest.mark.parametrize("entry", SECTIONS, ids=ids)
def test_each_plain_name_stands_for_its_definition(entry: SectionDef) -> None:
    section = entry.name.removesuffix("+")
    writer = ObjectWriter()
    writer.add_program(section, "main")
    (program,) = writer.read().programs
    assert program.definition == entry
    assert program.section == section


@pytest.mark.parametrize("entry", OPEN, ids=ids)
def test_a_name_with_plus_may_go_on_behind_a_slash(entry: SectionDef) -> None:
    stem = entry.name.removesuffix("+")
    assert find_section(f"{stem}/any/thing:here") is entry
    assert find_section(f"{stem}x") is None


@pytest.mark.parametrize("entry", CLOSED, ids=ids)
def test_a_name_without_plus_stands_alone(entry: SectionDef) -> None:
    assert find_section(f"{entry.name}/something") is None


@pytest.mark.parametrize("entry", SECTIONS, ids=ids)
def test_no_name_matches_two_definitions(entry: SectionDef) -> None:
    stem = entry.name.removesuffix("+")
    for section in (stem, *([f"{stem}/suffix"] if entry in OPEN else [])):
        assert [other for other in SECTIONS if other.matches(section)] == [entry]


@pytest.mark.parametrize(
    ("section", "type_", "attach_type", "flags"),
    [
        ("socket", ProgType.SOCKET_FILTER, 0, 0),
        ("kprobe/do_unlinkat", ProgType.KPROBE, 0, 0),
        ("uprobe.s//bin/bash:readline", ProgType.KPROBE, 0, ProgFlag.SLEEPABLE),
        ("kprobe.multi/tcp_*", ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI, 0),
        ("ksyscall/execve", ProgType.KPROBE, 0, 0),
        ("tp/sched/sched_switch", ProgType.TRACEPOINT, 0, 0),
        ("raw_tp.w/x", ProgType.RAW_TRACEPOINT_WRITABLE, 0, 0),
        ("tp_btf/sched_switch", ProgType.TRACING, AttachType.TRACE_RAW_TP, 0),
        ("fentry.s/f", ProgType.TRACING, AttachType.TRACE_FENTRY, ProgFlag.SLEEPABLE),
        ("fmod_ret/f", ProgType.TRACING, AttachType.MODIFY_RETURN, 0),
        ("lsm/file_open", ProgType.LSM, AttachType.LSM_MAC, 0),
        ("lsm_cgroup/socket_bind", ProgType.LSM, AttachType.LSM_CGROUP, 0),
        ("iter.s/task", ProgType.TRACING, AttachType.TRACE_ITER, ProgFlag.SLEEPABLE),
        ("syscall", ProgType.SYSCALL, 0, ProgFlag.SLEEPABLE),
        ("xdp", ProgType.XDP, AttachType.XDP, 0),
        ("xdp.frags/cpumap", ProgType.XDP, AttachType.XDP_CPUMAP, ProgFlag.XDP_HAS_FRAGS),
        ("tcx/egress", ProgType.SCHED_CLS, AttachType.TCX_EGRESS, 0),
        ("cgroup_skb/egress", ProgType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS, 0),
        ("cgroup/sock", ProgType.CGROUP_SOCK, AttachType.CGROUP_INET_SOCK_CREATE, 0),
        ("cgroup/connect6", ProgType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT, 0),
        ("cgroup/setsockopt", ProgType.CGROUP_SOCKOPT, AttachType.CGROUP_SETSOCKOPT, 0),
        ("sockops", ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS, 0),
        ("netfilter", ProgType.NETFILTER, AttachType.NETFILTER, 0),
    ],
)
def test_well_known_names_have_these_types(
    section: str, type_: ProgType, attach_type: int, flags: int
) -> None:
    definition = find_section(section)
    assert definition
    assert (definition.type, definition.attach_type, definition.flags) == (
        type_,
        attach_type,
        flags,
    )


@pytest.mark.parametrize("section", ["", "xdp/x", "kprob/x", "fentryx/y", "Xdp", "cgroup/", "/"])
def test_unknown_names_stand_for_nothing(section: str) -> None:
    assert find_section(section) is None


@pytest.mark.parametrize(
    ("attach_type", "expected"),
    [
        (AttachType.TRACE_RAW_TP, ("btf_trace_", Kind.TYPEDEF)),
        (AttachType.LSM_MAC, ("bpf_lsm_", Kind.FUNC)),
        (AttachType.LSM_CGROUP, ("bpf_lsm_", Kind.FUNC)),
        (AttachType.TRACE_ITER, ("bpf_iter_", Kind.FUNC)),
        (AttachType.TRACE_FENTRY, ("", Kind.FUNC)),
        (AttachType.TRACE_FSESSION, ("", Kind.FUNC)),
    ],
)
def test_attach_targets_are_looked_up_by_prefix_and_kind(
    attach_type: int, expected: tuple[str, Kind]
) -> None:
    assert attach_lookup(attach_type) == expected


def test_a_program_in_an_unknown_section_is_refused() -> None:
    writer = ObjectWriter()
    writer.add_program("xpd", "main")
    with pytest.raises(UnsupportedError, match="unknown section name 'xpd'") as caught:
        writer.read()
    assert "function 'main'" in caught.value.where


@pytest.mark.parametrize("name", ["maps", ".struct_ops", ".struct_ops.link", ".addr_space.1"])
def test_sections_that_no_loader_can_hold_are_refused(name: str) -> None:
    writer = ObjectWriter()
    writer.elf.add_section(name, bytes(8))
    with pytest.raises(UnsupportedError, match=f"section '{name}'"):
        writer.read()


def test_an_empty_section_that_no_loader_can_hold_is_no_harm() -> None:
    writer = ObjectWriter()
    writer.elf.add_section("maps")
    assert writer.read().maps == ()
