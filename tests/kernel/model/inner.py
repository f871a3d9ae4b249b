"""Programs with BTF and records, loaded on a kernel model of any profile and BTF."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

from bpfseal.bpf.insn import Insn, encode_insns
from bpfseal.bpf.uapi import ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model.btf_objects import btf_load
from bpfseal.kernel.model.kernel_btf import BtfFile, KernelBtf, SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.model.prog_load import prog_load
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.records import Records
from bpfseal.kernel.model.state import KernelState
from support.btf_writer import BtfWriter


def records(*rows: tuple[int, ...]) -> Records:
    raw = b"".join(struct.pack(f"<{len(row)}I", *row) for row in rows)
    return Records(len(rows), 4 * len(rows[0]) if rows else 0, raw)


@dataclass
class Inner:
    """A socket filter with one function ``main`` and whatever a test adds.

    Attributes:
        insns: the program.
        btf: its types; `main` is the FUNC of its first function.
        profile: the kernel.
        kernel_btf: the types of the kernel, ``None`` for a synthetic BTF.
        changes: other attributes.
    """

    insns: list[Insn]
    btf: BtfWriter = field(default_factory=BtfWriter)
    profile: str = "6.18"
    kernel_btf: BtfWriter | KernelBtf | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    main: int = 0

    def __post_init__(self) -> None:
        self.main = self.btf.add_func("main", self.btf.add_func_proto(0, []))

    def state(self) -> KernelState:
        known = self.kernel_btf
        if isinstance(known, BtfWriter):
            known = BtfFile(known.encode())
        btf = known or SyntheticBtf()
        return KernelState(PROFILES[self.profile], btf, SyntheticSymbols(), ())

    def load(self, state: KernelState | None = None) -> ModelProgram:
        """Load it and return the program."""
        state = state or self.state()
        given = ProgAttributes(
            type=ProgType.SOCKET_FILTER,
            name="main",
            insns=encode_insns(self.insns),
            license="GPL",
            btf_fd=btf_load(state, self.btf.encode()),
            func_info=records((0, self.main)),
        )
        fd = prog_load(state, replace(given, **self.changes))
        return state.fds.get_as(fd, ModelProgram)

    def refusal(self) -> KernelError:
        """Load it and return the error that must come."""
        try:
            self.load()
        except KernelError as error:
            return error
        raise AssertionError("it was not refused")
