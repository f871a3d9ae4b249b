"""CO-RE relocations: what an insn holds afterwards, for each kind and each way to fail."""

from __future__ import annotations

from contextlib import suppress
from errno import E2BIG, EINVAL, ERANGE
from pathlib import Path

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, decode_insns, ld_imm64, ldx_mem, mov64_imm, mov64_reg, st_mem
from bpfseal.btf.btf import Btf
from bpfseal.btf.core import POISONED, Relocation, RelocationError, RelocationKind, Relocator
from bpfseal.btf.core.matching import TargetTypes
from bpfseal.btf.core.spec import essential_name
from bpfseal.btf.kinds import INT_SIGNED, Kind
from bpfseal.errors import InputError
from bpfseal.object import read_object
from support.btf_writer import KIND_FLAG, BtfWriter

K = RelocationKind
EXAMPLE = Path(__file__).parents[3] / "examples" / "exectrace.bpf.o"
ROOT = 1
"""The type id of the root type in all BTFs here."""


def relocate(
    local: BtfWriter, target: BtfWriter, kind: int, access: str, *insns: Insn
) -> tuple[Insn, ...]:
    """Apply one record to the first insn."""
    changed = list(insns)
    apply(local, target, changed, Relocation.from_record((0, ROOT, 0, kind), access))
    return tuple(changed)


def apply(local: BtfWriter, target: BtfWriter, insns: list[Insn], relocation: Relocation) -> str:
    types = TargetTypes(Btf.from_bytes(target.encode()))
    relocator = Relocator(Btf.from_bytes(local.encode()), types)
    relocator.apply(insns, 0, relocation)
    return relocator.log


def task(*fields: str, name: str = "task", size: int = 4, signed: bool = False) -> BtfWriter:
    """A struct of ints under type id 1; the ints are of `size` bytes."""
    btf = BtfWriter()
    members = [(field, 2, 8 * size * number) for number, field in enumerate(fields)]
    btf.add_struct(name, size * len(fields), members)
    btf.add_int("int", size, signed=signed)
    return btf


@pytest.mark.parametrize(
    ("name", "essential"),
    [
        ("task_struct", "task_struct"),
        ("task_struct___old", "task_struct"),
        ("a___b___c", "a___b"),
        ("___b", "___b"),
        ("a____b", "a____b"),
        ("a___", "a___"),
        ("", ""),
    ],
)
def test_the_flavor_of_a_name_does_not_count(name: str, essential: str) -> None:
    assert essential_name(name) == essential


def test_the_offset_of_a_field_that_moved() -> None:
    local, target = task("pid", "tgid", name="task___mine"), task("new", "newer", "pid", "tgid")
    assert relocate(local, target, K.FIELD_BYTE_OFFSET, "0:1", ldx_mem(op.W, 0, 1, 4)) == (
        ldx_mem(op.W, 0, 1, 12),
    )
    assert relocate(local, target, K.FIELD_BYTE_OFFSET, "0:1", mov64_imm(1, 4)) == (
        mov64_imm(1, 12),
    )
    assert relocate(local, target, K.FIELD_BYTE_OFFSET, "0:1", st_mem(op.W, 1, 4, 9)) == (
        st_mem(op.W, 1, 12, 9),
    )
    assert relocate(local, target, K.FIELD_BYTE_OFFSET, "0:1", *ld_imm64(1, 0, 4)) == (
        *ld_imm64(1, 0, 12),
    )


def test_a_field_behind_an_anonymous_union() -> None:
    target = BtfWriter()
    target.add_struct("task", 8, [("flags", 2, 0), ("", 3, 32)])
    target.add_int("int", 4)
    target.add_raw(Kind.UNION, 4, (target.string("pid"), 2, 0), vlen=1)
    assert relocate(task("pid"), target, K.FIELD_BYTE_OFFSET, "0:0", mov64_imm(1, 0)) == (
        mov64_imm(1, 4),
    )


def test_elements_of_arrays_are_counted_in_the_sizes_of_the_kernel() -> None:
    def counters(size: int) -> BtfWriter:
        btf = BtfWriter()
        btf.add_struct("task", 8 * size, [("counts", 3, 0)])
        btf.add_int("int", size)
        btf.add_array(2, 8)
        return btf

    assert relocate(counters(4), counters(8), K.FIELD_BYTE_OFFSET, "0:0:3", mov64_imm(1, 12)) == (
        mov64_imm(1, 24),
    )


@pytest.mark.parametrize(
    ("kind", "access", "now", "then"),
    [
        (K.FIELD_BYTE_SIZE, "0:0", 4, 8),
        (K.FIELD_EXISTS, "0:0", 1, 1),
        (K.FIELD_SIGNED, "0:0", 1, 0),
        (K.FIELD_LSHIFT_U64, "0:0", 32, 0),
        (K.FIELD_RSHIFT_U64, "0:0", 32, 0),
        (K.TYPE_EXISTS, "0", 1, 1),
        (K.TYPE_SIZE, "0", 4, 8),
        (K.TYPE_ID_LOCAL, "0", 99, ROOT),
        (K.TYPE_ID_TARGET, "0", 99, 3),
    ],
)
def test_what_a_kind_asks_for(kind: RelocationKind, access: str, now: int, then: int) -> None:
    target = BtfWriter()
    target.add_int("long", 8)
    target.add_struct("other", 0, [])
    target.add_struct("task", 8, [("pid", 1, 0)])
    local = task("pid", signed=True)
    assert relocate(local, target, kind, access, mov64_imm(0, now)) == (mov64_imm(0, then),)


@pytest.mark.parametrize(
    ("kind", "access", "now"),
    [
        (K.FIELD_EXISTS, "0:0", 1),
        (K.TYPE_EXISTS, "0", 1),
        (K.TYPE_SIZE, "0", 4),
        (K.TYPE_MATCHES, "0", 1),
        (K.TYPE_ID_TARGET, "0", 7),
    ],
)
def test_what_is_not_there_is_zero_where_that_is_an_answer(
    kind: RelocationKind, access: str, now: int
) -> None:
    assert relocate(task("pid"), task("pid", name="x"), kind, access, mov64_imm(0, now)) == (
        mov64_imm(0, 0),
    )


@pytest.mark.parametrize("kind", [K.FIELD_BYTE_OFFSET, K.FIELD_BYTE_SIZE, K.FIELD_SIGNED])
@pytest.mark.parametrize("target", [task("tgid"), task("pid", name="x")], ids=["field", "type"])
def test_what_is_not_there_poisons_the_insn(kind: RelocationKind, target: BtfWriter) -> None:
    assert relocate(task("pid"), target, kind, "0:0", mov64_imm(0, 5)) == (POISONED,)
    assert relocate(task("pid"), target, kind, "0:0", *ld_imm64(0, 0, 5)) == (POISONED, POISONED)


def enum(name: str = "state", **values: int) -> BtfWriter:
    btf = BtfWriter()
    btf.add_enum(name, values)
    return btf


def test_enumerators_are_found_by_name() -> None:
    local, target = enum(A=0, B=1), enum(name="state___x", B=7, C=8)
    assert relocate(local, target, K.ENUMVAL_VALUE, "1", mov64_imm(0, 1)) == (mov64_imm(0, 7),)
    assert relocate(local, target, K.ENUMVAL_EXISTS, "0", mov64_imm(0, 1)) == (mov64_imm(0, 0),)
    assert relocate(local, target, K.ENUMVAL_VALUE, "0", mov64_imm(0, 0)) == (POISONED,)


def test_negative_enumerators_fill_64_bits() -> None:
    local = BtfWriter()
    local.add_raw(Kind.ENUM, 4, (local.string("A"), 0xFFFFFFFF), name="e", vlen=1 | KIND_FLAG)
    assert relocate(local, local, K.ENUMVAL_VALUE, "0", *ld_imm64(0, 0, -1, -1)) == ld_imm64(
        0, 0, -1, -1
    )


def test_a_load_of_an_unsigned_field_follows_its_size() -> None:
    assert relocate(
        task("pid"), task("pid", size=8), K.FIELD_BYTE_OFFSET, "0:0", ldx_mem(op.W, 0, 1, 0)
    ) == (ldx_mem(op.DW, 0, 1, 0),)


def test_a_load_of_a_signed_field_of_another_size_is_poisoned() -> None:
    local, target = task("pid", signed=True), task("pid", size=8, signed=True)
    insn = ldx_mem(op.W, 0, 1, 0)
    assert relocate(local, target, K.FIELD_BYTE_OFFSET, "0:0", insn) == (POISONED,)


def bitfield(offset: int, size: int) -> BtfWriter:
    btf = BtfWriter()
    body = (btf.string("flag"), 2, size << 24 | offset)
    btf.add_raw(Kind.STRUCT, 8, body, name="task", vlen=1 | KIND_FLAG)
    btf.add_encoded_int("int", 4, INT_SIGNED)
    return btf


def test_bitfields_are_read_in_the_word_that_holds_them() -> None:
    local, target = bitfield(3, 2), bitfield(37, 4)
    expected = {
        K.FIELD_BYTE_OFFSET: 4,
        K.FIELD_BYTE_SIZE: 4,
        K.FIELD_LSHIFT_U64: 64 - 5 - 4,
        K.FIELD_RSHIFT_U64: 60,
    }
    for kind, value in expected.items():
        now = 62 if kind is K.FIELD_RSHIFT_U64 else 99
        assert relocate(local, target, kind, "0:0", mov64_imm(0, now)) == (mov64_imm(0, value),)


def test_a_bitfield_that_no_load_reads() -> None:
    with pytest.raises(RelocationError) as refused:
        relocate(bitfield(0, 8), bitfield(30, 60), K.FIELD_BYTE_OFFSET, "0:0", mov64_imm(0, 0))
    assert refused.value.errno == E2BIG


def test_structs_match_by_their_members() -> None:
    def kind_of(target: BtfWriter) -> int:
        [insn] = relocate(task("a", "b"), target, K.TYPE_MATCHES, "0", mov64_imm(0, 1))
        return insn.imm

    assert kind_of(task("z", "b", "a")) == 1
    assert kind_of(task("a", "c")) == 0
    assert kind_of(task("a", "b", size=8)) == 0


@pytest.mark.parametrize(
    ("kind", "access", "insn"),
    [
        (K.FIELD_BYTE_OFFSET, "", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, ":0", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:-1", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:x", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:2", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:0:0", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0" + ":0" * 64, mov64_imm(0, 0)),
        (K.FIELD_SIGNED, "0", mov64_imm(0, 0)),
        (K.TYPE_EXISTS, "0:0", mov64_imm(0, 1)),
        (K.ENUMVAL_VALUE, "0", mov64_imm(0, 0)),
        (13, "0:0", mov64_imm(0, 0)),
        (K.FIELD_BYTE_OFFSET, "0:1", mov64_imm(0, 5)),
        (K.FIELD_BYTE_OFFSET, "0:1", mov64_reg(0, 1)),
        (K.FIELD_BYTE_OFFSET, "0:1", ldx_mem(op.W, 0, 1, 5)),
        (K.FIELD_BYTE_OFFSET, "0:1", Insn(op.JMP | op.JA)),
        (K.FIELD_BYTE_OFFSET, "0:1", ld_imm64(0, 1, 4)[0]),
    ],
    ids=str,
)
def test_records_that_are_einval(kind: int, access: str, insn: Insn) -> None:
    with pytest.raises(RelocationError) as refused:
        relocate(task("a", "b"), task("a", "b"), kind, access, insn)
    assert refused.value.errno == EINVAL


def test_candidates_that_disagree_are_einval() -> None:
    target = BtfWriter()
    target.add_struct("task", 8, [("other", 3, 0), ("pid", 3, 32)])
    target.add_struct("task___v2", 4, [("pid", 3, 0)])
    target.add_int("int", 4)
    with pytest.raises(RelocationError, match="field offset ambiguity: 0 != 32"):
        relocate(task("pid"), target, K.FIELD_BYTE_OFFSET, "0:0", mov64_imm(0, 0))


def test_an_offset_that_no_load_reaches_is_erange() -> None:
    target = BtfWriter()
    target.add_struct("task", 1 << 17, [("pid", 2, 8 << 16)])
    target.add_int("int", 4)
    with pytest.raises(RelocationError) as refused:
        relocate(task("pid"), target, K.FIELD_BYTE_OFFSET, "0:0", ldx_mem(op.W, 0, 1, 0))
    assert refused.value.errno == ERANGE


def test_the_log_names_field_candidate_and_value() -> None:
    insns = [ldx_mem(op.W, 0, 1, 4)]
    relocation = Relocation.from_record((0, ROOT, 0, K.FIELD_BYTE_OFFSET), "0:1")
    log = apply(
        task("pid", "tgid", name="task___mine"), task("new", "pid", "tgid"), insns, relocation
    )
    assert log.splitlines() == [
        "CO-RE relocating STRUCT task: found target candidate [1]",
        "prog '': relo #0: <byte_off> [1] STRUCT task___mine.tgid (0:1 @ offset 4)",
        "prog '': relo #0: matching candidate #0 <byte_off> [1] STRUCT task.tgid (0:2 @ offset 8)",
        "prog '': relo #0: patched insn #0 (LDX/ST/STX) off 4 -> 8",
    ]


def test_a_real_object_against_its_own_types_stays_as_it_is() -> None:
    bpf_object = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    btf, ext = bpf_object.btf, bpf_object.btf_ext
    assert btf is not None
    assert ext is not None
    relocator = Relocator(btf, TargetTypes(btf))
    count = 0
    for program in bpf_object.programs:
        insns = decode_insns(program.insns)
        before = list(insns)
        for row in ext.core_relos.records_of(program.elf_section):
            relocation = Relocation.from_record(row, btf.string(row[2]))
            if program.section_insn <= relocation.insn < program.section_insn + len(insns):
                at = relocation.insn - program.section_insn
                relocator.apply(insns, count, relocation._replace(insn=at))
                count += 1
        assert insns == before
    assert count


@st.composite
def _structs(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Sizes and array lengths of the fields of a struct; length 0 is no array."""
    field = st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, 4))
    return draw(st.lists(field, min_size=1, max_size=8))


@seed(6)
@settings(max_examples=150, deadline=None)
@given(_structs(), st.data())
def test_offsets_are_those_that_the_layout_says(
    fields: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Whatever order a kernel has its fields in, the insn holds the offset in that order."""
    order = data.draw(st.permutations(range(len(fields))))

    def layout(numbers: list[int]) -> tuple[BtfWriter, dict[int, int]]:
        btf, members, places, at = BtfWriter(), [], {}, 0
        for position, number in enumerate(numbers):
            size, count = fields[number]
            members.append((f"f{number}", 2 + 2 * position + bool(count), 8 * at))
            places[number] = at
            at += size * max(count, 1)
        btf.add_struct("task", at, members)
        for position, number in enumerate(numbers):
            size, count = fields[number]
            int_id = btf.add_int(f"u{8 * size}", size)
            assert int_id == 2 + 2 * position
            btf.add_array(int_id, max(count, 1))
        return btf, places

    local, mine = layout(list(range(len(fields))))
    target, theirs = layout(list(order))
    for number, (size, count) in enumerate(fields):
        element = data.draw(st.integers(0, count - 1)) if count else 0
        access = f"0:{number}" + (f":{element}" if count else "")
        now, then = (places[number] + element * size for places in (mine, theirs))
        [own] = relocate(local, local, K.FIELD_BYTE_OFFSET, access, mov64_imm(0, now))
        [moved] = relocate(local, target, K.FIELD_BYTE_OFFSET, access, mov64_imm(0, now))
        assert (own.imm, moved.imm) == (now, then)


def _damaged(raw: bytes, changes: list[tuple[int, int]]) -> Btf | None:
    """Return a BTF with some bytes changed, ``None`` if it is none any more."""
    changed = bytearray(raw)
    for at, value in changes:
        changed[at % len(changed)] = value
    try:
        return Btf.from_bytes(bytes(changed))
    except InputError:
        return None


DAMAGE = st.lists(st.tuples(st.integers(24, 400), st.integers(0, 255)), max_size=4)


@seed(6)
@settings(max_examples=300, deadline=None)
@given(DAMAGE, DAMAGE, st.integers(0, 9), st.integers(0, 14), st.text("0123:-", max_size=9))
def test_damaged_types_raise_only_our_errors(
    mine: list[tuple[int, int]],
    theirs: list[tuple[int, int]],
    type_id: int,
    kind: int,
    access: str,
) -> None:
    btf = BtfWriter()
    btf.add_struct("task", 32, [("pid", 2, 0), ("", 3, 32), ("counts", 4, 64)])
    btf.add_int("int", 4)
    btf.add_struct("", 8, [("inner", 5, 0)])
    btf.add_array(2, 4)
    btf.add_enum("state", {"A": 0, "B": 1})
    btf.add_typedef("task_t", 1)
    btf.add_func_proto(2, [("x", 1)])
    local, target = _damaged(btf.encode(), mine), _damaged(btf.encode(), theirs)
    if local is None or target is None:
        return
    insns = [ldx_mem(op.W, 0, 1, 0), mov64_imm(0, 0), *ld_imm64(1, 0, 0)]
    relocator = Relocator(local, TargetTypes(target))
    for index in range(3):
        with suppress(RelocationError):
            relocator.apply(insns, 0, Relocation.from_record((8 * index, type_id, 0, kind), access))
