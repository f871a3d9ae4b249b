"""A header is read as a compiler reads it: nothing but the reference tool's own text is taken."""

# ruff: noqa: E501 (text of the reference tool is not broken)

from __future__ import annotations

import lzma
import tracemalloc
from pathlib import Path

import pytest

from bpfseal.bundle import lskel
from bpfseal.bundle.lskel import LightSkeleton, parse_header
from bpfseal.bundle.lskel_import import import_header
from bpfseal.errors import BpfsealError, InputError
from bpfseal.loader import generate
from bpfseal.object import read_object
from support.fuzz import mutations

FOLDER = Path(__file__).parent / "headers"
OBJECT = Path(__file__).parents[2] / "examples" / "exectrace.bpf.o"
NEW, OLD = "bpftool-7.8-signed", "bpftool-7.1"
NAMES = (NEW, "bpftool-7.8-unsigned", "bpftool-7.5", OLD)
SCHEMES = {name: "loadtime" if name == NEW else "unsigned" for name in NAMES}


def genuine(name: str = NEW) -> str:
    return lzma.decompress((FOLDER / f"{name}.lskel.h.xz").read_bytes()).decode()


def parsed(text: str) -> LightSkeleton:
    return parse_header(text.encode(), "tool.lskel.h")


@pytest.mark.parametrize("name", NAMES)
def test_names_and_blobs_of_genuine_headers_are_found(name: str) -> None:
    """tools/bpf/bpftool/gen.c of two generations, with and without a signature."""
    header = parsed(genuine(name))
    loader = generate(read_object(OBJECT.read_bytes(), OBJECT.name), SCHEMES[name])
    assert header.name == "exectrace_bpf"
    assert header.maps == ("started", "events", "rodata", "bss")
    assert header.programs == ("on_exec", "on_exit")
    assert header.arrays["opts_insn"] == loader.insns
    assert header.arrays["opts_data"] == loader.metadata
    assert ("opts_sig" in header.arrays) == (name == NEW)
    assert header.initial_values == {"rodata": bytes(8), "bss": bytes(16)}


@pytest.mark.parametrize("name", NAMES)
def test_genuine_headers_are_imported(name: str) -> None:
    (variant,) = import_header(genuine(name).encode(), "tool.lskel.h").variants
    assert variant.loader.scheme_name == SCHEMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_line_ends_and_a_byte_order_mark_mean_nothing_to_a_compiler(name: str) -> None:
    text = genuine(name)
    expected = parsed(text)
    assert parse_header(text.replace("\n", "\r\n").encode(), "x") == expected
    assert parse_header(b"\xef\xbb\xbf" + text.encode(), "x") == expected
    with pytest.raises(InputError, match="CRLF"):
        parse_header(text.replace("\n", "\r\n", 5).encode(), "x")


LOAD = "exectrace_bpf__load(struct exectrace_bpf *skel)\n{\n"
RUN = "\terr = bpf_load_and_run(&opts);\n"
DATA = "\t\t__u64 seen;\n"
EVIL = 'system("true");'

TRICKS = {
    "directive around an array": (
        "\tstatic const char opts_insn",
        "#if 0\n\tstatic const char opts_insn",
    ),
    "another directive": ("\n#include", "\n#include <stdlib.h>\n#include"),
    "macro": ("\n#include", "\n#define bpf_load_and_run(x) system(x)\n#include"),
    "macro at the end": ("\n#endif /* __", "\n#define skel_closenz abort\n#endif /* __"),
    "pragma": ("\n#include", "\n#pragma weak x\n#include"),
    "comment": (RUN, f"\t/* a comment */\n{RUN}"),
    "comment in a line": ("\tint err;", "\tint err; // see below"),
    "comment that hides": ("\topts.data = ", "\t/* \topts.data = "),
    "statement": (RUN, f"\t{EVIL}\n{RUN}"),
    "statement in the same line": (RUN, f"{RUN[:-1]} {EVIL}\n"),
    "statement behind": ("\treturn 0;\n}", f"\t{EVIL}\n\treturn 0;\n}}"),
    "line splice": (RUN, "\terr = bpf_load_and_\\\nrun(&opts);\n"),
    "splice in front of a line": (RUN, f"\t\\\n{RUN}"),
    "trigraph splice": (RUN, f"\t// ??/\n{RUN}"),
    "digraph": ("__load(struct exectrace_bpf *skel)\n{", "__load(struct exectrace_bpf *skel)\n<%"),
    "one function more": (
        "static inline int\nexectrace_bpf__load",
        f"static int x(void) {{ {EVIL} }}\nstatic inline int\nexectrace_bpf__load",
    ),
    "constructor": (
        "static inline int\nexectrace_bpf__load",
        "__attribute__((constructor)) static int\nexectrace_bpf__load",
    ),
    "a function twice": (
        "static inline int\nexectrace_bpf__attach",
        "static inline int\nexectrace_bpf__load(struct exectrace_bpf *skel)\n{\n}\n\nstatic inline int\nexectrace_bpf__attach",
    ),
    "an array twice": (
        "\tstatic const char opts_data",
        '\tstatic const char opts_insn[] __attribute__((__aligned__(8))) = "\\\n\\0";\n\tstatic const char opts_data',
    ),
    "another initializer": (
        "\topts.insns = (void *)opts_insn;",
        "\topts.insns = (void *)opts_data;",
    ),
    "an assignment twice": (
        "\topts.insns = (void *)opts_insn;\n",
        "\topts.insns = (void *)opts_insn;\n" * 2,
    ),
    "string concatenation": (
        '\\0";\n\tstatic const char opts_insn',
        '\\0" "\\0";\n\tstatic const char opts_insn',
    ),
    "string prefix": (
        'opts_insn[] __attribute__((__aligned__(8))) = "',
        'opts_insn[] __attribute__((__aligned__(8))) = L"',
    ),
    "octal escape": ("\\xbf\\x16", "\\277\\x16"),
    "octal behind zero": ("\\xbf\\x16\\0", "\\xbf\\x16\\01"),
    "long hex escape": ("\\xbf\\x16", "\\xbff\\x16"),
    "plain letter": ("\\xbf\\x16", "\\xbfg\\x16"),
    "upper X": ("\\xbf\\x16", "\\Xbf\\x16"),
    "another type": (
        "opts_insn[] __attribute__((__aligned__(8)))",
        "opts_insn[4] __attribute__((__aligned__(8)))",
    ),
    "another alignment": (
        "opts_insn[] __attribute__((__aligned__(8)))",
        "opts_insn[] __attribute__((__aligned__(1)))",
    ),
    "another section": (
        "opts_insn[] __attribute__((__aligned__(8)))",
        'opts_insn[] __attribute__((__section__(".text")))',
    ),
    "shadowing parameter": (LOAD, f"{LOAD}\tint (*bpf_load_and_run)(void *) = (void *)system;\n"),
    "member that is no declaration": (DATA, f"{DATA}\t\tint x[({{ {EVIL} 1; }})];\n"),
    "member with a statement expression over two lines": (
        DATA,
        f"{DATA}\t\tint x[(\n\t\t{{ 1; }})];\n",
    ),
    "member with an initializer": (DATA, f"{DATA}\t\tint x = abort();\n"),
    "member with a call in its size": (DATA, f"{DATA}\t\tint x[(abort(), 1)];\n"),
    "member function": (DATA, f"{DATA}\t\tvoid f(int x) {{ abort(); }}\n"),
    "constructor of the struct": (DATA, f"{DATA}\t\texectrace_bpf__bss() {{ abort(); }}\n"),
    "function pointer with a body": (DATA, f"{DATA}\t\tint (*f)(int) {{ abort(); }}\n"),
    "member with asm": (DATA, f'{DATA}\t\tint x asm("y");\n'),
    "member with an attribute": (DATA, f"{DATA}\t\tint x __attribute__((cleanup(y)));\n"),
    "member with a directive": (DATA, f"{DATA}#define seen lost\n"),
    "struct that ends early": (DATA, f"{DATA}\t}} *x; }}; struct {{ struct {{\n"),
    "another include": ("<bpf/skel_internal.h>", '"skel_internal.h"'),
    "another guard": ("#ifndef __EXECTRACE_BPF_SKEL_H__", "#ifndef __X_SKEL_H__"),
    "another order of maps": (
        "\t\tstruct bpf_map_desc started;\n\t\tstruct bpf_map_desc events;",
        "\t\tstruct bpf_map_desc events;\n\t\tstruct bpf_map_desc started;",
    ),
    "another name in a function": (
        "__on_exec__attach(skel);\n\tret",
        "__on_exit__attach(skel);\n\tret",
    ),
    "tracepoint that is an expression": (
        "skel_raw_tracepoint_open(NULL, prog_fd)",
        f"({EVIL[:-1]}, 0)",
    ),
    "tracepoint with an escape": ("(NULL, prog_fd)", '("a\\x22", prog_fd)'),
    "fewer pages": (
        "initial_value, 4096);\n\tskel_closenz(skel->maps.bss",
        "initial_value, 1);\n\tskel_closenz(skel->maps.bss",
    ),
    "white space": ("\tint err;\n", "\tint  err;\n"),
    "empty line": ("\tint err;\n", "\tint err;\n\n\n"),
    "form feed": ("\tint err;\n", "\tint err;\f\n"),
    "letters beyond ASCII": ("\tint err;\n", "\tint err;\u00a0\n"),
    "nul": ("\tint err;\n", "\tint err;\0\n"),
    "carriage return": (RUN, f"\t// \r{RUN}"),
    "text behind the end": ("SKEL_H__ */\n", "SKEL_H__ */\nstatic int x;\n"),
    "no array": ("\topts.data = (void *)opts_data;\n", ""),
    "unknown array": (
        "\tstatic const char opts_data",
        '\tstatic const char opts_more[] __attribute__((__aligned__(8))) = "\\\n\\0";\n\tstatic const char opts_data',
    ),
}
"""What a compiler reads otherwise than somebody who looks for arrays."""


@pytest.mark.parametrize("trick", TRICKS)
def test_what_the_tool_does_not_write_is_refused_with_its_line(trick: str) -> None:
    old, new = TRICKS[trick]
    text = genuine()
    assert old in text
    start, _, end = text.rpartition(old) if "end" in trick else text.partition(old)
    with pytest.raises(InputError) as caught:
        import_header((start + new + end).encode(), "tool.lskel.h")
    assert caught.value.where.startswith("tool.lskel.h")


@pytest.mark.parametrize("name", NAMES)
def test_no_line_can_be_left_out_doubled_or_changed(name: str) -> None:
    """Whatever a line says, the file without it, or with it twice, is another program."""
    text = genuine(name)
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines):
        for other in ([], [line, line], [f"{line} "], [f"{line};"]):
            changed = "\n".join([*lines[:number], *other, *lines[number + 1 :], ""])
            try:
                parsed(changed)  # which is less work
                if line.startswith("\\"):
                    continue  # a blob, which the loader's own checks are for
                if not line and not other:
                    continue  # the empty line that 7.5 has and 7.8 has not
                import_header(changed.encode(), "x")
            except InputError:
                continue
            pytest.fail(f"line {number + 1}: {line!r} became {other}")


def test_a_header_of_another_tool_is_refused() -> None:
    with pytest.raises(InputError, match="not a light skeleton"):
        parsed("struct x { struct bpf_loader_ctx ctx; };\n")


def test_the_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lskel, "MAX_HEADER_SIZE", 20)
    with pytest.raises(InputError, match="larger than 20 bytes"):
        parsed(genuine())


@pytest.mark.parametrize("filler", ["\n", " ", "\t", "/**/", "\\\n", "\\0", "{"])
@pytest.mark.parametrize("place", ["/* SPDX", "\tint err;\n", DATA, "opts_insn[]", '= "\\\n'])
def test_memory_is_bounded_by_the_size(filler: str, place: str) -> None:
    text = genuine()
    start, found, end = text.partition(place)
    data = (start + found + filler * (1_000_000 // len(filler)) + end).encode()
    tracemalloc.start()
    try:
        parse_header(data, "x")
    except InputError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 * len(data)


@pytest.mark.parametrize("name", NAMES)
def test_damage_never_raises_anything_else(name: str) -> None:
    text = genuine(name).encode()
    refused = 0
    for damaged in mutations(text, 600, seed=7):
        try:
            parse_header(damaged, "damaged")
        except BpfsealError:
            refused += 1
    assert refused > 100  # the rest is in blobs, which the loader's own checks are for
