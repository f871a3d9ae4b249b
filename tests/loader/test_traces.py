"""Loaders that print their steps do the same as those that do not."""

from __future__ import annotations

import pytest

from bpfseal.bpf.insn import decode_insns
from bpfseal.bpf.uapi import Helper
from bpfseal.loader import generate
from bpfseal.scheme import SCHEMES
from support.loader_reading import commands, helper_calls
from support.samples import everything


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tracing_changes_no_command(scheme: str) -> None:
    obj = everything().read()
    plain, traced = generate(obj, scheme), generate(obj, scheme, traces=True)
    assert [(c.command, c.raw) for c in commands(traced)] == [
        (c.command, c.raw) for c in commands(plain)
    ]
    assert (traced.maps, traced.programs, traced.btf) == (plain.maps, plain.programs, plain.btf)


def test_only_tracing_loaders_print() -> None:
    obj = everything().read()
    for traces in (False, True):
        helpers = {call.helper for call in helper_calls(generate(obj, "kfunc", traces=traces))}
        assert (Helper.TRACE_PRINTK in helpers) == traces


def test_every_printed_line_is_a_string_of_the_metadata() -> None:
    loader = generate(everything().read(), "kfunc", traces=True)
    assert decode_insns(loader.insns)
    for call in helper_calls(loader):
        if call.helper == Helper.TRACE_PRINTK:
            at, size = call.arguments[1].number, call.arguments[2].number
            line = loader.metadata[at : at + size]
            assert line.index(0) == size - 1
            assert line[:-1].decode().isprintable()
