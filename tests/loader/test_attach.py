"""Attach targets that the loader looks up in the kernel's BTF."""

from __future__ import annotations

import pytest

from bpfseal.bpf.uapi import Cmd, Helper
from bpfseal.btf.kinds import Kind
from bpfseal.errors import UnsupportedError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from support.loader_reading import helper_calls, only, reading
from support.object_writer import ObjectWriter


def made(section: str) -> Loader:
    writer = ObjectWriter()
    writer.add_program(section, "main")
    return generate(writer.read(), "kfunc")


def looked_up(loader: Loader) -> list[tuple[str, int]]:
    """Return the names and kinds that a loader asks for."""
    found = []
    for call in helper_calls(loader):
        if call.helper == Helper.BTF_FIND_BY_NAME_KIND:
            at, size = call.arguments[1].number, call.arguments[2].number
            name = loader.metadata[at : at + size]
            assert name.endswith(b"\0")
            found.append((name[:-1].decode(), call.arguments[3].number))
    return found


@pytest.mark.parametrize(
    ("section", "target", "kind"),
    [
        ("tp_btf/sched_switch", "btf_trace_sched_switch", Kind.TYPEDEF),
        ("lsm/file_open", "bpf_lsm_file_open", Kind.FUNC),
        ("lsm.s/bprm_check_security", "bpf_lsm_bprm_check_security", Kind.FUNC),
        ("lsm_cgroup/socket_bind", "bpf_lsm_socket_bind", Kind.FUNC),
        ("iter/task", "bpf_iter_task", Kind.FUNC),
        ("iter.s/bpf_map", "bpf_iter_bpf_map", Kind.FUNC),
        ("fentry/do_unlinkat", "do_unlinkat", Kind.FUNC),
        ("fexit.s/do_unlinkat", "do_unlinkat", Kind.FUNC),
        ("fmod_ret/security_task_alloc", "security_task_alloc", Kind.FUNC),
        ("fsession/do_unlinkat", "do_unlinkat", Kind.FUNC),
    ],
)
def test_the_target_is_looked_up_by_its_kernel_name(section: str, target: str, kind: Kind) -> None:
    loader = made(section)
    assert looked_up(loader) == [(target, kind)]
    (program,) = loader.programs
    assert (program.section, program.attach_target) == (section, target)
    load = only(loader, Cmd.PROG_LOAD)
    assert reading(loader).attach_target(load) == target
    assert load.written["attach_btf_obj_fd"].kind == "result"


@pytest.mark.parametrize("section", ["kprobe/do_unlinkat", "tp/sched/sched_switch", "xdp"])
def test_other_programs_look_nothing_up(section: str) -> None:
    loader = made(section)
    assert looked_up(loader) == []
    assert loader.programs[0].attach_target == ""
    assert only(loader, Cmd.PROG_LOAD).fields["attach_btf_id"] == 0


@pytest.mark.parametrize("section", ["fentry", "lsm", "iter.s", "tp_btf", "fentry/", "lsm/"])
def test_a_section_without_a_target_is_refused(section: str) -> None:
    with pytest.raises(UnsupportedError, match=f"section '{section}' names no attach target"):
        made(section)


def test_replacing_a_function_of_another_program_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="which only user space can name"):
        made("freplace/handler")


def test_target_names_end_at_127() -> None:
    assert looked_up(made(f"fentry/{'x' * 127}")) == [("x" * 127, Kind.FUNC)]
    with pytest.raises(UnsupportedError, match="longer than 127"):
        made(f"fentry/{'x' * 128}")
    with pytest.raises(UnsupportedError, match="longer than 127"):
        made(f"lsm/{'x' * 120}")


def test_a_program_that_is_not_to_load_needs_no_target() -> None:
    writer = ObjectWriter()
    writer.add_program("?fentry", "optional")
    writer.add_program("xdp", "main")
    assert looked_up(generate(writer.read(), "kfunc")) == []
