"""What BPF_BTF_LOAD refuses, type by type, and where types refer to each other."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from errno import E2BIG, EEXIST, EINVAL
from typing import Final

import pytest

from bpfseal.bpf import attr
from bpfseal.bpf.uapi import Cmd
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind, Linkage
from bpfseal.errors import InputError, KernelError
from bpfseal.kernel.linux.syscalls import Buffer, bpf
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.refusal import ENOTSUPP
from support.btf_writer import KIND_FLAG, BtfWriter

COUNT: Final = 2000

Rule = Callable[[BtfWriter], object]

INT: Final = 1
"""The id of ``int``, which is there in all cases."""

REFUSED: Final[dict[str, tuple[Rule, str]]] = {
    "an int of more bits than its bytes": (
        lambda btf: btf.add_raw(Kind.INT, 2, (32,), name="i"),
        "nr_bits exceeds type_size",
    ),
    "a pointer with a name": (lambda btf: btf.add_raw(Kind.PTR, INT, name="p"), "Invalid name"),
    "a typedef without a name": (lambda btf: btf.add_raw(Kind.TYPEDEF, INT), "Invalid name"),
    "a count where there is none": (lambda btf: btf.add_raw(Kind.PTR, INT, vlen=1), "vlen != 0"),
    "a flag where there is none": (
        lambda btf: btf.add_raw(Kind.PTR, INT, vlen=KIND_FLAG),
        "Invalid btf_info kind_flag",
    ),
    "a name that is no identifier": (lambda btf: btf.add_struct("a b", 0, []), "Invalid name"),
    "a member behind the struct": (
        lambda btf: btf.add_struct("s", 4, [("a", INT, 64)]),
        "Member bits_offset exceeds its struct size",
    ),
    "a member that is too long": (
        lambda btf: btf.add_struct("s", 5, [("a", INT, 16)]),
        "Member exceeds struct_size",
    ),
    "members out of order": (
        lambda btf: btf.add_struct("s", 8, [("a", INT, 32), ("b", INT, 0)]),
        "Invalid member bits_offset",
    ),
    "a pointer between bytes": (
        lambda btf: btf.add_struct("s", 16, [("a", btf.add_ptr(INT), 3)]),
        "Member is not byte aligned",
    ),
    "an enum of 3 bytes": (lambda btf: btf.add_enum("e", {"A": 0}, 3), "Unexpected size"),
    "an extern function": (
        lambda btf: btf.add_func("f", btf.add_func_proto(0, []), Linkage.EXTERN),
        "Invalid func linkage",
    ),
    "a function with a nameless argument": (
        lambda btf: btf.add_func("f", btf.add_func_proto(0, [("", INT)])),
        "Invalid arg#1",
    ),
    "an extern variable": (
        lambda btf: btf.add_var("v", INT, Linkage.EXTERN),
        "Linkage not supported",
    ),
    "a section without bytes": (lambda btf: btf.add_datasec(".data", []), "size == 0"),
    "a section of something else": (
        lambda btf: btf.add_datasec(".data", [(INT, 0, 4)], 4),
        "Not a VAR kind member",
    ),
    "a section with too little for a variable": (
        lambda btf: btf.add_datasec(".data", [(btf.add_var("v", INT), 0, 2)], 4),
        "Invalid size",
    ),
    "an array by a struct": (
        lambda btf: btf.add_array(INT, 1, btf.add_struct("s", 0, [])),
        "Invalid index",
    ),
    "an array of void": (
        lambda btf: btf.add_array(btf.add_modifier(Kind.CONST, 0), 1, INT),
        "Invalid elem",
    ),
    "a pointer to a variable": (lambda btf: btf.add_ptr(btf.add_var("v", INT)), "Invalid type_id"),
    "a tag on an int": (lambda btf: btf.add_decl_tag("t", INT), "Invalid type_id"),
    "a tag behind a modifier": (
        lambda btf: btf.add_modifier(Kind.CONST, btf.add_modifier(Kind.TYPE_TAG, INT, "t")),
        "Type tags don't precede modifiers",
    ),
}


def refusal(add: Rule) -> tuple[int, str]:
    """Add something to a BTF with an INT, and return the errno of its load and the rule."""
    btf = BtfWriter()
    btf.add_int("int", 4, signed=True)
    add(btf)
    with pytest.raises(KernelError) as error:
        BtfObject.load(btf.encode())
    return error.value.errno, error.value.rule


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused(what: str) -> None:
    add, log = REFUSED[what]
    errno, rule = refusal(add)
    assert errno == EINVAL
    assert rule.endswith(log)


def test_an_int_of_an_unknown_encoding() -> None:
    errno, rule = refusal(lambda btf: btf.add_encoded_int("i", 4, 3))
    assert errno == ENOTSUPP
    assert rule.endswith("Unsupported encoding")


def test_a_type_does_not_contain_itself() -> None:
    assert refusal(lambda btf: btf.add_struct("s", 4, [("s", 2, 0)]))[0] == EEXIST


def test_a_type_may_point_to_itself() -> None:
    btf = BtfWriter()
    btf.add_struct("s", 8, [("next", 2, 0)])
    btf.add_ptr(1)
    assert len(BtfObject.load(btf.encode()).btf) == 3


def test_types_are_not_nested_too_deep() -> None:
    def add(btf: BtfWriter) -> None:
        for target in range(3, 40):  # each leads to the next
            btf.add_ptr(target)
        btf.add_ptr(INT)

    assert refusal(add)[0] == E2BIG


def rich_btf() -> bytes:
    """Return a BTF with types of every kind."""
    btf = BtfWriter()
    number = btf.add_int("int", 4, signed=True)
    text = btf.add_ptr(btf.add_int("char", 1))
    struct = btf.add_struct("pair", 24, [("a", number, 0), ("b", text, 64)])
    array = btf.add_array(struct, 2, number)
    enum = btf.add_enum("choice", {"A": 1, "B": 2})
    constant = btf.add_modifier(Kind.CONST, btf.add_modifier(Kind.TYPEDEF, struct, "pair_t"))
    tagged = btf.add_ptr(btf.add_modifier(Kind.TYPE_TAG, constant, "tag"))
    real = btf.add_raw(Kind.FLOAT, 4, name="float")
    volatile = btf.add_modifier(Kind.VOLATILE, array)
    members = [("m", volatile, 0), ("e", enum, 384), ("f", real, 416), ("p", tagged, 448)]
    btf.add_struct("all", 64, members)
    btf.add_raw(Kind.FWD, name="later")
    btf.add_func("f", btf.add_func_proto(number, [("x", text)]))
    btf.add_datasec(".data", [(btf.add_var("v", number), 0, 4)], 4)
    btf.add_decl_tag("t", struct)
    btf.add_enum64("large", {"Z": 1 << 40})
    return btf.encode()


def changed(raw: bytes, chance: random.Random) -> bytes:
    """Return a BTF with one word of its types changed."""
    found = Btf.from_bytes(raw)
    at = found.types_offset + 4 * chance.randrange(len(found.words))
    word = int.from_bytes(raw[at : at + 4], "little")
    other = chance.choice(
        [
            chance.randrange(len(found)),
            chance.randrange(len(found.strings) + 1),
            word ^ 1 << chance.randrange(32),
            word + 1,
            chance.randrange(20) << 24 | word & 0x80FFFFFF,
        ]
    )
    return raw[:at] + (other & 0xFFFFFFFF).to_bytes(4, "little") + raw[at + 4 :]


@pytest.mark.skipif(os.geteuid() != 0, reason="loading BTF needs root")
def test_this_machines_kernel_agrees() -> None:
    chance = random.Random(5)  # noqa: S311 (reproducible, no secret)
    raw = rich_btf()
    different = []
    for _ in range(COUNT):
        given = changed(raw, chance)
        answers = _model(given), _kernel(given)
        # a kernel goes through the types in their order, the model reads them all first
        if answers[0] != answers[1] and _is_readable(given):
            different.append((given.hex(), *answers))
    assert different == []


def _is_readable(raw: bytes) -> bool:
    try:
        Btf.from_bytes(raw)
    except InputError:
        return False
    return True


def _model(raw: bytes) -> int:
    try:
        BtfObject.load(raw)
    except KernelError as error:
        return error.errno
    return 0


def _kernel(raw: bytes) -> int:
    data = Buffer(raw)
    packed = attr.BTF_LOAD.pack(btf=data.address, btf_size=len(raw))
    try:
        os.close(bpf(Cmd.BTF_LOAD, bytearray(packed)))
    except KernelError as error:
        return error.errno
    return 0
