"""Values of the target machines: stated, with defaults, and never looked up on the build host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import BpfsealError, InputError
from bpfseal.object.target import (
    DEFAULT_TARGET,
    TargetValues,
    kernel_version,
    parse_kconfig,
)
from support.object_writer import ObjectWriter


def test_the_defaults_suit_every_machine_that_loads_signed_loaders() -> None:
    assert DEFAULT_TARGET.page_size == 4096
    assert DEFAULT_TARGET.possible_cpus == 8192
    assert DEFAULT_TARGET.kernel_version == kernel_version("6.18")
    assert (DEFAULT_TARGET.kconfig, DEFAULT_TARGET.symbols) == ({}, {})


def test_a_perf_event_array_without_a_number_has_an_entry_for_every_cpu() -> None:
    writer = ObjectWriter()
    writer.add_map("events", type=MapType.PERF_EVENT_ARRAY, key_size=4, value_size=4)
    assert writer.read().maps[0].max_entries == DEFAULT_TARGET.possible_cpus
    assert writer.read(target=TargetValues(possible_cpus=2)).maps[0].max_entries == 2


def test_the_address_of_a_symbol_is_zero_unless_it_is_stated() -> None:
    writer = ObjectWriter()
    writer.add_ksym("jiffies")
    assert writer.read().externs[0].address == 0
    stated = TargetValues(symbols={"jiffies": 0xFFFFFFFF81000000})
    assert writer.read(target=stated).externs[0].address == 0xFFFFFFFF81000000


@pytest.mark.parametrize(
    ("text", "version"),
    [("6.18", 0x061200), ("6.18.44", 0x06122C), ("4.19.325", 0x0413FF), ("7.3.0", 0x070300)],
)
def test_a_kernel_version_is_three_bytes_and_the_last_one_is_cut(text: str, version: int) -> None:
    """KERNEL_VERSION in the kernel's generated version.h."""
    assert kernel_version(text) == version


@pytest.mark.parametrize("text", ["", "6", "6.x", "6.18.1.2", "-6.1", "6.256", "6.\uff11"])
def test_what_is_no_kernel_version_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        kernel_version(text)


def test_a_config_file_gives_the_values_of_its_options() -> None:
    text = '# CONFIG_A is not set\nCONFIG_HZ=250\n\nCONFIG_NAME="a=b"\nCONFIG_BPF=y\nNOISE=1\n'
    assert parse_kconfig(text) == {
        "CONFIG_HZ": "250",
        "CONFIG_NAME": '"a=b"',
        "CONFIG_BPF": "y",
    }


@given(
    st.builds(
        TargetValues,
        page_size=st.sampled_from([4096, 16384, 65536]),
        possible_cpus=st.integers(1, 0xFFFFFFFF),
        kernel_version=st.integers(0, 0xFFFFFFFF),
        kconfig=st.dictionaries(st.text(), st.text(), max_size=3),
        symbols=st.dictionaries(st.text(), st.integers(0, 2**64 - 1), max_size=3),
        kconfig_byteorder=st.sampled_from([None, "little", "big"]),
    )
)
def test_values_come_back_from_json_as_they_were(values: TargetValues) -> None:
    assert TargetValues.from_json(values.to_json()) == values


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"cpus": 2}',
        b'{"page_size": 4095}',
        b'{"page_size": "4096"}',
        b'{"page_size": true}',
        b'{"possible_cpus": 0}',
        b'{"kernel_version": -1}',
        b'{"kconfig": []}',
        b'{"kconfig": {"CONFIG_A": 1}}',
        b'{"symbols": {"a": "0x1"}}',
        b'{"kconfig_byteorder": "middle"}',
        b'{"kconfig_byteorder": 1}',
        b"[" * 100_000,
    ],
)
def test_a_document_that_is_no_set_of_values_is_refused(text: bytes) -> None:
    with pytest.raises(BpfsealError):
        TargetValues.from_json(text)
