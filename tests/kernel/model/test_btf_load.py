"""Answers of BPF_BTF_LOAD on Linux 6.18.44: forms of the header, sections, special fields."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Final

import pytest

from bpfseal.bpf.uapi import MapType
from bpfseal.btf.builder import BtfBuilder
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import KernelError
from bpfseal.kernel.load import load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.map_calls import map_create
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.loader import generate
from bpfseal.object import read_object

CASES: Final = Path(__file__).with_name("cases")
MEASURED: Final[dict[str, tuple[str, str]]] = json.loads((CASES / "btf_load.json").read_text())


class BtfWithout(SyntheticBtf):
    """A kernel that lacks some functions."""

    def find(self, name: str, kind: object) -> int | None:
        return None if "missing" in name or "other" in name else super().find(name, kind)  # type: ignore[arg-type]


def answer_of(raw: bytes, profile: str = "6.18-unverified") -> str:
    try:
        ModelKernel(profile=PROFILES[profile]).btf_load(raw)
    except KernelError as error:
        return "ENOTSUPP" if error.errno == 524 else errno.errorcode[error.errno]
    return "OK"


@pytest.mark.parametrize("name", MEASURED)
def test_a_btf_is_answered_as_by_the_kernel(name: str) -> None:
    raw, expected = MEASURED[name]
    assert answer_of(bytes.fromhex(raw)) == expected


def test_a_header_with_layouts_is_known_from_7_2_on() -> None:
    raw = bytes.fromhex(MEASURED["hl32lay"][0])
    assert answer_of(raw, "7.0") == "E2BIG"
    assert answer_of(raw, "7.2") != "E2BIG"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("two_locks", errno.E2BIG),
        ("lock_unaligned", errno.EFAULT),
        ("lock_kv_rdonly", errno.EACCES),
    ],
)
def test_locks_that_do_not_fit_end_the_load(name: str, expected: int) -> None:
    """btf_parse_fields and map_check_btf; measured on Linux 6.18.44."""
    with pytest.raises(KernelError) as refused:
        load_object(name)
    assert refused.value.errno == expected


_U32_TYPE: Final = 1
_TAKES_BTF: Final = {
    **dict.fromkeys((MapType.HASH, MapType.ARRAY, MapType.PROG_ARRAY, MapType.LRU_HASH), 0),
    **dict.fromkeys((MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.REUSEPORT_SOCKARRAY), 0),
    **dict.fromkeys((MapType.PERF_EVENT_ARRAY, MapType.CGROUP_ARRAY, MapType.CPUMAP), 524),
    **dict.fromkeys((MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.SOCKMAP, MapType.XSKMAP), 524),
    **dict.fromkeys((MapType.QUEUE, MapType.STACK), errno.EINVAL),
}
"""Answers of Linux 6.18.44 to maps with a BTF for a key and a value of four bytes."""


@pytest.mark.parametrize("kind", _TAKES_BTF)
def test_a_map_takes_a_btf_if_its_type_does(kind: MapType) -> None:
    """map_check_btf (kernel/bpf/syscall.c)."""
    kernel = ModelKernel()
    builder = BtfBuilder()
    assert builder.add_int("unsigned int", 4) == _U32_TYPE
    has_key = kind not in (MapType.QUEUE, MapType.STACK)
    attributes = MapAttributes(
        type=kind,
        key_size=4 if has_key else 0,
        value_size=4,
        max_entries=1,
        btf_fd=kernel.btf_load(builder.encode()),
        btf_key_type_id=_U32_TYPE if has_key else 0,
        btf_value_type_id=_U32_TYPE,
    )
    answer = 0
    try:
        map_create(kernel._state, attributes)
    except KernelError as error:
        answer = error.errno
    assert answer == _TAKES_BTF[kind]


@pytest.mark.parametrize("name", ["w1", "w2", "w6"])
def test_inner_syscall_programs_may_call_kfuncs_and_test_for_weak_ones(name: str) -> None:
    """A call of a kfunc that the kernel lacks is dead code behind its test (fixup_kfunc_call)."""
    assert [program.name for program in load_object(name).programs] == ["__loader.prog", "run"]


def load_object(name: str) -> ModelKernel:
    path = CASES / f"{name}.bpf.o"
    loader = generate(read_object(path.read_bytes(), path.name), "unsigned")
    kernel = ModelKernel(profile=PROFILES["6.18-unverified"], kernel_btf=BtfWithout())
    load(kernel, SignedLoader(loader), unsigned=True)
    return kernel
