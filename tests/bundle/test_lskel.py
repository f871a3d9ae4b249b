"""Light skeletons are read as C tokens in exactly the reference tool's form."""

from __future__ import annotations

import pytest

from bpfseal.bundle import lskel
from bpfseal.bundle.lskel import parse_header, read_arrays
from bpfseal.errors import BpfsealError, InputError
from support.fuzz import mutations
from support.lskel_writer import array

BLOBS = array("opts_data", b"data") + array("opts_insn", bytes(range(256)))
HEADER = f"""/* made by a tool */
#include <bpf/skel_internal.h> \\
  still the same directive " with one quote

struct tool_bpf {{
	struct bpf_loader_ctx ctx;
	struct {{ struct bpf_map_desc events; struct bpf_map_desc rodata; }} maps;
	struct {{ struct bpf_prog_desc enter; struct bpf_prog_desc leave; }} progs;
	struct {{ int enter_fd; int leave_fd; }} links;
	__s32 keyring_id;
	struct tool_bpf__rodata {{ struct {{ int deep; }} nested; }} *rodata;
}};
static inline int tool_bpf__enter__attach(struct tool_bpf *skel)
{{ int fd = skel_raw_tracepoint_open("sched_switch", prog_fd); }} // attached
static inline int tool_bpf__leave__attach(struct tool_bpf *skel)
{{ int fd = skel_raw_tracepoint_open(NULL, prog_fd); }}
{array("data", b"initial")} skel->rodata = 0;
{BLOBS}"""


def parsed(text: str) -> lskel.LightSkeleton:
    return parse_header(text.encode(), "tool.lskel.h")


def test_names_blobs_and_tracepoints_are_found() -> None:
    header = parsed(HEADER)
    assert header.name == "tool_bpf"
    assert header.maps == ("events", "rodata")
    assert header.programs == ("enter", "leave")
    assert header.arrays == {"opts_data": b"data", "opts_insn": bytes(range(256))}
    assert header.initial_values == {"rodata": b"initial"}
    assert header.tracepoints == {"enter": "sched_switch"}


def test_arrays_alone_can_be_read() -> None:
    assert read_arrays(BLOBS)["opts_data"] == b"data"
    assert read_arrays(array("opts_sig", b"")) == {"opts_sig": b""}


def test_groups_without_members_are_left_out() -> None:
    text = f"struct x {{ struct bpf_loader_ctx ctx; }};\n{BLOBS}"
    assert (parsed(text).maps, parsed(text).programs) == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("\\x01", "\\x1g", 0, "is no hex escape"),
        ("\\x01", "\\1", 0, "is no hex escape"),
        ("\\x01", "A", 0, "is no hex escape"),
        ("\\x01", "\\x", 0, "is no hex escape"),
        ("struct tool_bpf {", "int x; struct tool_bpf {", 5, "not a light skeleton"),
        ("struct bpf_loader_ctx ctx;", "int ctx;", 6, "expected 'struct'"),
        ("struct bpf_map_desc rodata;", "struct bpf_map_desc events;", 0, "occurs twice"),
        ("} maps;", "} progs;", 7, "expected 'maps'"),
        ("__s32 keyring_id", "__u32 keyring_id", 10, "expected '__s32'"),
        ("} nested; }", "} nested;", 0, "expected"),
        ("__aligned__(8)", "__aligned__(4)", 0, "expected '8'"),
        ("skel->rodata = 0", "skel->other = 0", 0, "other is no member of the struct"),
        ("opts_data[]", "opts_insn[]", 0, "opts_insn occurs twice"),
        ("opts_data[]", "opts_more[]", 0, "no array opts_data"),
        ('"sched_switch"', "name", 14, "expected the name of a tracepoint"),
    ],
)
def test_another_form_is_refused_with_its_line(old: str, new: str, line: int, reason: str) -> None:
    assert old in HEADER
    text = HEADER.replace(old, new, 1)
    with pytest.raises(InputError, match=reason) as caught:
        parsed(text)
    assert caught.value.where.startswith("tool.lskel.h: line ")
    if line:
        assert caught.value.where == f"tool.lskel.h: line {line}"


@pytest.mark.parametrize("begin", ['"', "/*"])
def test_a_string_or_comment_without_end_is_refused(begin: str) -> None:
    with pytest.raises(InputError, match="no end of what begins with"):
        parsed(f"{HEADER}\n{begin} ")


def test_what_is_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lskel, "MAX_TOKENS", 20)
    with pytest.raises(InputError, match="more than 20 tokens"):
        parsed(HEADER)
    monkeypatch.setattr(lskel, "MAX_HEADER_SIZE", 20)
    with pytest.raises(InputError, match="larger than 20 bytes"):
        parsed(HEADER)
    monkeypatch.undo()
    monkeypatch.setattr(lskel, "MAX_ENTRIES", 1)
    with pytest.raises(InputError, match="more than 1 members"):
        parsed(HEADER)


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="UTF-8") as caught:
        parse_header(HEADER.encode() + b"\n\xff", "tool.lskel.h")
    assert caught.value.where == f"tool.lskel.h: line {HEADER.count(chr(10)) + 2}"


def test_damage_never_raises_anything_else() -> None:
    read = 0
    for damaged in mutations(HEADER.encode(), 6000, seed=7):
        try:
            parse_header(damaged, "damaged")
        except BpfsealError:
            continue
        read += 1
    assert read > 100  # comments, function bodies and blobs may be anything
