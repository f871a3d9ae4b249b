"""The table of attachments, and what can be said before a kernel is asked.

That programs really attach is shown in guests (tests/vm).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpfseal.bpf.attr import LINK_CREATE, LINK_KINDS, AttrLayout
from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.errors import BpfsealError, InputError, UsageError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.loader.model import ProgramEntry
from bpfseal.sections import SECTIONS
from bpfseal.skeleton.arguments import Arguments, MissingArgumentError
from bpfseal.skeleton.attach import attach, how_to_attach
from bpfseal.skeleton.elf_symbols import function_offsets
from bpfseal.skeleton.probes import _split
from support.uapi import evaluate, header, skip_if_missing

NOT_BY_LINK = {
    "socket", "sk_reuseport", "sk_reuseport/migrate", "tc", "classifier", "action", "freplace+",
    "fentry.multi+", "fentry.multi.s+", "fexit.multi+", "fexit.multi.s+", "fsession.multi+",
    "fsession.multi.s+", "syscall", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "lirc_mode2",
    "struct_ops+", "struct_ops.s+", "xdp/devmap", "xdp.frags/devmap", "xdp/cpumap",
    "xdp.frags/cpumap",
}  # fmt: skip
"""Sections whose programs are not attached by a link, or by one to a program that is loaded."""


def entry(section: str, kind: ProgType, attach_type: int = 0) -> ProgramEntry:
    return ProgramEntry("prog", section, kind, attach_type)


def test_every_section_has_its_row_or_is_known_to_have_none() -> None:
    without = {
        section.name for section in SECTIONS if not how_to_attach(section.type, section.attach_type)
    }
    assert without == NOT_BY_LINK


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        (entry("xdp", ProgType.XDP, AttachType.XDP), "interface"),
        (entry("tcx/ingress", ProgType.SCHED_CLS, AttachType.TCX_INGRESS), "interface"),
        (entry("cgroup/skb", ProgType.CGROUP_SKB), "attach_type"),
        (entry("sockops", ProgType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS), "cgroup"),
        (entry("raw_tp", ProgType.RAW_TRACEPOINT), "tracepoint"),
        (entry("tp", ProgType.TRACEPOINT), "tracepoint"),
        (entry("", ProgType.KPROBE), "function"),
        (entry("uprobe", ProgType.KPROBE), "path"),
        (entry("kprobe.multi", ProgType.KPROBE, AttachType.TRACE_KPROBE_MULTI), "functions"),
        (entry("uprobe.multi", ProgType.KPROBE, AttachType.TRACE_UPROBE_MULTI), "path"),
        (entry("perf_event", ProgType.PERF_EVENT), "event"),
        (entry("netfilter", ProgType.NETFILTER, AttachType.NETFILTER), "hook"),
        (entry("sk_msg", ProgType.SK_MSG, AttachType.SK_MSG_VERDICT), "sockets"),
    ],
)
def test_a_missing_argument_is_named_with_an_example(program: ProgramEntry, argument: str) -> None:
    with pytest.raises(MissingArgumentError, match=f"needs the argument {argument}") as refused:
        attach(LinuxKernel(), -1, program, {}, trust_sections=True)
    assert f"{argument}=" in refused.value.hint


def test_an_unknown_argument_is_refused_before_anything_happens() -> None:
    program = entry("xdp", ProgType.XDP, AttachType.XDP)
    with pytest.raises(UsageError, match="program prog of type XDP takes no colour"):
        attach(LinuxKernel(), -1, program, {"interface": 1, "colour": 1}, trust_sections=True)
    with pytest.raises(BpfsealError, match="no network interface 'none0'"):
        attach(LinuxKernel(), -1, program, {"interface": "none0"}, trust_sections=True)


def test_a_file_is_given_by_path_number_or_object() -> None:
    with Path("/dev/null").open() as file:
        for value in (file.fileno(), file):
            with Arguments("p", "XDP", {"cgroup": value}).file("cgroup") as fd:
                assert fd == file.fileno()
    with Arguments("p", "XDP", {}).file("namespace", "/proc/self/ns/net") as fd:
        assert fd > 2
    with (
        pytest.raises(BpfsealError, match="/none: cannot be opened"),
        Arguments("p", "XDP", {"cgroup": "/none"}).file("cgroup"),
    ):
        pass


def test_places_of_probes() -> None:
    assert _split("do_unlinkat") == ("do_unlinkat", 0)
    assert _split("do_unlinkat+0x10") == ("do_unlinkat", 16)
    assert _split("0x20") == ("", 32)
    with pytest.raises(UsageError):
        _split("a+b")


# Layouts of BPF_LINK_CREATE.


@pytest.mark.parametrize("kind", LINK_KINDS)
def test_the_union_of_links_is_that_of_the_header(kind: str) -> None:
    layout: AttrLayout = LINK_KINDS[kind]
    text = header("bpf.h").partition("struct { /* struct used by BPF_LINK_CREATE command */")[2]
    text = text.partition("} link_create;")[0]
    if kind != "iter" and f"}} {kind};" not in text:
        skip_if_missing("bpf.h", [kind])
    prefix = "link_create." if kind == "iter" else f"link_create.{kind}."
    body = text if kind == "iter" else text.partition(f"}} {kind};")[0].rpartition("struct {")[2]
    known = {name: field for name, field in layout.fields.items() if f"{name};" in body}
    places = {name: f"((union bpf_attr *)0)->{prefix}{name}" for name in known}
    expected = {f"{name} at": field.offset for name, field in known.items()}
    expected |= {f"{name} size": field.size for name, field in known.items()}
    asked = {f"{name} at": f"offsetof(union bpf_attr, {prefix}{name})" for name in known}
    asked |= {f"{name} size": f"sizeof({place})" for name, place in places.items()}
    assert evaluate("bpf.h", asked) == expected
    skip_if_missing("bpf.h", [name for name in layout.fields if name not in known])


def test_no_kind_of_link_is_longer_than_the_attribute() -> None:
    assert all(layout.size <= LINK_CREATE.size for layout in LINK_KINDS.values())
    start = LINK_CREATE.end("flags")
    assert all(
        field.offset >= start for layout in LINK_KINDS.values() for field in layout.fields.values()
    )


# Functions in ELF files.


def test_functions_lie_where_nm_says(tmp_path: Path) -> None:
    for tool in ("gcc", "nm"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    source, program = tmp_path / "p.c", tmp_path / "p"
    source.write_text("int one(void){return 1;} int two(void){return 2;} int main(void){return 0;}")
    subprocess.run(["gcc", "-no-pie", "-o", program, source], check=True)
    listing = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    addresses = {name: int(at, 16) for at, name in re.findall(r"(\w+) T (\w+)", listing)}
    found = function_offsets(program, "*")
    assert {"one", "two", "main"} <= set(found)
    for name in ("one", "two", "main"):
        assert addresses[name] - found[name] == addresses["main"] - found["main"] == 0x400000
    assert list(function_offsets(program, "t?o")) == ["two"]
    assert function_offsets(program, "three") == {}


@settings(deadline=None)  # it writes files
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_broken_elf_file_raises_our_errors_only(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "broken"
    with Path(sys.executable).open("rb") as program:
        data = bytearray(program.read(4096))
    data[at : at + len(noise)] = noise
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        function_offsets(path, "*")
