"""A header says nothing that its loader does not: everything but a few names is compared with it."""

# ruff: noqa: E501 (text of the reference tool is not broken)

from __future__ import annotations

import lzma
import re
from functools import cache
from pathlib import Path

import pytest

from bpfseal.bundle.lskel import parse_header
from bpfseal.bundle.lskel_import import import_header
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import InputError, VerificationError
from bpfseal.loader import generate
from bpfseal.object import read_object
from support.lskel_writer import header_of

FOLDER = Path(__file__).parent / "headers"
EXAMPLES = Path(__file__).parents[2] / "examples"
GENUINE = sorted(path.name.removesuffix(".lskel.h.xz") for path in FOLDER.glob("*.xz"))
GENUINE.remove("shapes-7.1")  # see test_members_that_compilers_place_elsewhere_...


@cache
def genuine(name: str = "bpftool-7.8-signed") -> str:
    return lzma.decompress((FOLDER / f"{name}.lskel.h.xz").read_bytes()).decode()


@cache
def guard() -> str:
    """The header of an LSM program."""
    obj = read_object((EXAMPLES / "guard.bpf.o").read_bytes(), "guard.bpf.o")
    return header_of(SignedLoader(generate(obj, "unsigned")))


def imported(text: str) -> SignedLoader:
    (variant,) = import_header(text.encode(), "tool.lskel.h").variants
    return variant


def refused(text: str, old: str, new: str) -> InputError:
    assert old in text
    with pytest.raises(InputError) as caught:
        imported(text.replace(old, new))
    assert caught.value.where.startswith("tool.lskel.h")
    return caught.value


@pytest.mark.parametrize("name", GENUINE)
def test_what_the_tool_writes_is_taken(name: str) -> None:
    """Sections with every form of C type, names that functions of the header use, no BTF."""
    variant = imported(genuine(name))
    assert variant.loader.name in (
        "exectrace_bpf",
        "linked_bpf",
        "names_bpf",
        "nobtf_bpf",
        "nobtfnodata_bpf",
    )


@pytest.mark.parametrize("name", GENUINE)
def test_line_ends_do_not_matter(name: str) -> None:
    text = genuine(name).replace("\n", "\r\n").encode()
    assert import_header(text, "x") == import_header(b"\xef\xbb\xbf" + text, "x")


# Variables of global data

BSS = "\t\t__u64 seen;\n\t\t__u64 lost;\n"


def hidden_code(before: str, arguments: str, between: str, behind: str) -> str:
    """Members whose braces balance, and which are the end of two structs and a function."""
    fill = "".join(f"\t\txx[{number}] = {byte};\n" for number, byte in enumerate(b"id\0"))
    return (
        f"\t\t__u64 seen; __u64 lost; }} *bss; }}; char xx[99]; {before} __LDBL_REDIR_DECL(*)({arguments}) {between} {{ {{\n"
        f"{fill}\t\tsystem __LDBL_REDIR_DECL(*)(xx); }} {behind} }} struct x1 {{ struct x2 {{\n"
    )


FRIEND = (
    "\t\t__u64 seen; __u64 lost; [[gnu::constructor]] friend void ff __LDBL_REDIR_DECL(*)(void) noexcept {\n"
    "\t\tchar xx[9];\n\t\txx[0] = 0;\n\t\tsystem __LDBL_REDIR_DECL(*)(xx);\n\t\t}\n"
)
MEMBERS = {
    "a function for gcc": hidden_code("[[gnu::constructor]] void ff", "void", "__BEGIN_DECLS", ""),
    "a function for clang in the place of libc's": hidden_code(
        "int close", "int fd", "__BEGIN_DECLS", ""
    ),
    "a function for g++": hidden_code("[[gnu::constructor]] void ff", "void", "noexcept", ""),
    "a friend function": FRIEND,
    "swapped": "\t\t__u64 lost;\n\t\t__u64 seen;\n",
    "invented": "\t\tint allowed;\n\t\tchar rest[65536];\n",
    "one more": f"{BSS}\t\t__u64 more;\n",
    "one less": "\t\t__u64 seen;\n",
    "none": "",
    "another name": "\t\t__u64 seen;\n\t\t__u64 gone;\n",
    "another size": "\t\t__u64 seen;\n\t\t__u32 lost;\n",
    "another type of the same size": "\t\t__u64 seen;\n\t\t__s64 lost;\n",
    "an array": "\t\t__u64 seen;\n\t\t__u64 lost[1];\n",
    "an unneeded padding": "\t\t__u64 seen;\n\t\tchar __pad0[0];\n\t\t__u64 lost;\n",
    "an attribute": "\t\t__u64 seen;\n\t\t__u64 lost __attribute__((aligned(8)));\n",
    "a bitfield": "\t\t__u64 seen;\n\t\t__u64 lost: 64;\n",
    "other white space": "\t\t__u64  seen;\n\t\t__u64 lost;\n",
    "a constructor": f"{BSS}\t\texectrace_bpf__bss();\n",
    "a type that a macro may be": "\t\tstdin seen;\n\t\t__u64 lost;\n",
}


@pytest.mark.parametrize("trick", MEMBERS)
def test_members_are_those_of_the_loaders_btf(trick: str) -> None:
    error = refused(genuine(), BSS, MEMBERS[trick])
    assert "line " in error.where


def test_the_line_of_a_different_member_is_named() -> None:
    error = refused(genuine(), "\t\t__u64 lost;", "\t\t__u64 gone;")
    line = genuine()[: genuine().index("\t\t__u64 lost;")].count("\n") + 1
    assert str(error) == f"tool.lskel.h: line {line}: the loader's BTF makes it 'lost'"


def test_no_token_of_a_member_can_be_another() -> None:
    """Every form of type: tokens left out, doubled or replaced, and words put in front."""
    text = genuine("shapes-7.8")
    start = text.index("\tstruct linked_bpf__data {")
    end = text.index("\n};\n", start)
    for found in [*re.finditer(r"\w+|[^\w\s]", text[start:end])][::29]:
        at, behind = start + found.start(), start + found.end()
        for new in ("", found[0] * 2, "x", "0", ";", "*", f"const {found[0]}", f"\n{found[0]}"):
            if new != found[0]:
                with pytest.raises(InputError):
                    imported(text[:at] + new + text[behind:])


def test_members_are_those_of_one_release() -> None:
    """Enums of one byte have a mode since libbpf 1.2 at the earliest; a header has it or not."""
    refused(genuine("shapes-7.8"), "} __attribute__((mode(byte))) ae5;", "} ae5;")
    refused(genuine("shapes-7.1"), "} ae5;", "} __attribute__((mode(byte))) ae5;")


def test_members_that_compilers_place_elsewhere_than_the_loader_are_refused() -> None:
    """libbpf 1.1 declares packed enums with the size of an int: what is behind them moves."""
    with pytest.raises(InputError, match=r"mode\((byte|word)\)"):
        imported(genuine("shapes-7.1"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\tstruct exectrace_bpf__bss {\n\t\t__u64 seen;\n\t\t__u64 lost;\n\t} *bss;\n", ""),
        ("\tstruct exectrace_bpf__rodata {", "\tstruct exectrace_bpf__events {"),
    ],
)
def test_the_sections_are_those_that_the_loader_maps(old: str, new: str) -> None:
    refused(genuine(), old, new)


def test_a_map_that_is_no_global_data_has_no_variables() -> None:
    struct = "\tstruct exectrace_bpf__events {\n\t} *events;\n"
    refused(
        genuine(), "\tstruct exectrace_bpf__rodata {", f"{struct}\tstruct exectrace_bpf__rodata {{"
    )


def test_a_section_has_its_own_variables() -> None:
    """``.data`` and ``.data.x``: the member's name says which is which."""
    text = genuine("shapes-7.8")
    swapped = text.replace("data_my_sec_x", "\0").replace("rodata_cfg", "data_my_sec_x")
    with pytest.raises(VerificationError):
        imported(swapped.replace("\0", "rodata_cfg"))


# Assertions

ASSERT = "\t_Static_assert(sizeof(s->bss->lost) == 8, \"unexpected size of 'lost'\");\n"


@pytest.mark.parametrize(
    "new",
    [
        "",
        ASSERT * 2,
        ASSERT.replace("8", "4"),
        ASSERT.replace("bss", "rodata"),
        ASSERT.replace("'lost'", "'last'"),
        f"{ASSERT}\tsystem(0);\n",
    ],
)
def test_assertions_are_those_of_the_loaders_btf(new: str) -> None:
    refused(genuine(), ASSERT, new)


def test_assertions_come_with_btf() -> None:
    text = genuine()
    start, end = text.index("__attribute__((unused)) static"), text.index("\n#endif /* __EX")
    with pytest.raises(InputError, match="asserts the sizes"):
        imported(text[:start] + text[end:])
    function = text[start:end].replace("exectrace", "nobtf")
    function = re.sub(r"\t_Static_assert.*\n", "", function)
    error = refused(genuine("without-btf-7.8"), "\n#endif /* __N", f"{function}\n#endif /* __N")
    assert "without BTF" in str(error)


# Attaching

NONE = "((void)prog_fd, 0); /* auto-attach not supported */"
BY_BTF = "skel_raw_tracepoint_open(NULL, prog_fd);"
ITERATOR = "skel_link_create(prog_fd, 0, BPF_TRACE_ITER);"
NAMED = 'skel_raw_tracepoint_open("sys_enter", prog_fd);'


@pytest.mark.parametrize("other", [NONE, ITERATOR, NAMED, "0;", "system(0);"])
def test_tracing_and_lsm_programs_are_attached_by_btf(other: str) -> None:
    """``codegen_attach_detach`` in tools/bpf/bpftool/gen.c."""
    refused(genuine(), BY_BTF, other)
    refused(guard(), BY_BTF, other)


CALLS = {
    "rt": NAMED,
    "rtw": NONE,
    "class": NONE,
    "skel": NONE,
    "ret": NONE,
    "data": NONE,
    "tpb": BY_BTF,
    "itr": ITERATOR,
    "lsmp": BY_BTF,
    "fe": BY_BTF,
    "fmr": BY_BTF,
}
"""What the tool writes for programs of shapes.bpf.c."""


@pytest.mark.parametrize("program", CALLS)
def test_each_type_is_attached_as_the_tool_does_it(program: str) -> None:
    start = f"\tint prog_fd = skel->progs.{program}.prog_fd;\n\tint fd = "
    for other in {NONE, BY_BTF, ITERATOR, NAMED} - {CALLS[program]}:
        refused(genuine("shapes-7.8"), start + CALLS[program], start + other)


def test_the_name_of_a_raw_tracepoint_is_the_headers_own() -> None:
    """No part of a loader holds it; `verify` names it as not covered."""
    text = genuine("shapes-7.8").replace('"sys_enter"', '"sys_exit"')
    (program,) = [each for each in imported(text).loader.programs if each.name == "rt"]
    assert program.section == "raw_tracepoint/sys_exit"


# Mapping


@pytest.mark.parametrize(
    "size", ["1", "0", "4095", "9999999999", "12288", "32768", "262144", "04096"]
)
def test_as_much_is_mapped_as_the_loaders_map_has(size: str) -> None:
    refused(genuine(), "4096", size)


@pytest.mark.parametrize("size", [8192, 16384, 65536])
def test_all_sizes_are_of_one_page_size(size: int) -> None:
    """The reference tool takes the page size of its machine; there are four in Linux."""
    text = genuine()
    assert imported(text.replace("4096", str(size))) == imported(text)
    one = re.sub(r"(?<=rodata\.initial_value, )4096|4096(?=, PROT_READ, )", str(size), text)
    with pytest.raises(InputError):
        imported(one)


@pytest.mark.parametrize(
    "other", ["PROT_READ | PROT_WRITE", "PROT_NONE", "PROT_READ | PROT_EXEC", "PROT_WRITE"]
)
def test_constants_are_mapped_for_reading(other: str) -> None:
    refused(genuine(), "4096, PROT_READ, ", f"4096, {other}, ")


@pytest.mark.parametrize("other", ["PROT_READ", "PROT_WRITE", "PROT_READ|PROT_WRITE"])
def test_variables_are_mapped_for_writing(other: str) -> None:
    refused(genuine(), "PROT_READ | PROT_WRITE", other)


def test_initial_values_are_those_of_the_metadata() -> None:
    text = genuine()
    at = text.index('"\\\n\\0', text.index("__open(void)")) + 3
    with pytest.raises(InputError, match="another value than the metadata"):
        imported(text[:at] + "\\x01" + text[at + 2 :])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (", 4096, 16);", ", 4096, 016);"),
        (", 4096, 16);", ", 4096, 0x10);"),
        (", 4096, 16);", ", 4096, 17);"),
        ("opts.data_sz = ", "opts.data_sz = 0"),
        ("opts.insns_sz = ", "opts.insns_sz = 0"),
    ],
)
def test_numbers_are_written_as_the_tool_writes_them(old: str, new: str) -> None:
    """A number that begins with 0 is octal for a compiler."""
    refused(genuine("bpftool-7.1"), old, new)


# Names


@pytest.mark.parametrize(
    "word",
    ["int", "for", "struct", "__attribute__", "__extension__", "_Static_assert", "1st", "x" * 64],
)
def test_the_name_of_the_struct_is_a_name(word: str) -> None:
    text = genuine().replace("exectrace_bpf", word).replace("EXECTRACE_BPF", word.upper())
    with pytest.raises(InputError):
        imported(text)


def test_a_keyword_of_cpp_is_a_name_in_c() -> None:
    """C++ compiles no header with such a program, so it is nothing else there."""
    assert [each.name for each in imported(genuine("shapes-7.8")).loader.programs][2] == "class"


def test_sections_of_an_object_without_mapped_variables() -> None:
    """Static variables only: bpftool 7.8 maps nothing, 7.1 a struct without members."""
    new, old = (parse_header(genuine(f"shapes-{tool}").encode(), "x") for tool in ("7.8", "7.1"))
    assert "data_only_static" in new.maps
    assert "data_only_static" not in new.sections
    assert old.sections["data_only_static"].text == ""
