"""Programs of the kernel model: what BPF_PROG_LOAD makes, and what is kept of it.

Example:
    >>> kernel.programs[-1].verdict
    <Verdict.METADATA_VERIFIED: 2>
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, encode_insns
from bpfseal.bpf.uapi import ProgType
from bpfseal.kernel.model import machine
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.lsm import ProgramFacts
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.records import Records
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

NO_RECORDS: Final = Records()


class Pointer(NamedTuple):
    """Bytes that a call points to and that are read when they are needed.

    Attributes:
        address: where they are.
        size: how many they are said to be.
    """

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class ProgAttributes:
    """The attributes of BPF_PROG_LOAD, with what their pointers pointed to.

    Attributes:
        type: the number of the program type.
        name: at most 15 bytes.
        insns: the program.
        license: its licence.
        flags: flags of BPF_PROG_LOAD.
        expected_attach_type: the number of the attach type.
        attach_btf_id: the type in the kernel's BTF that it attaches to.
        attach_fd: the program, or the BTF, that `attach_btf_id` belongs to; 0 for the kernel's.
        btf_fd: the program's BTF, 0 for none.
        func_info: which FUNC of the BTF each function is.
        line_info: the lines of source.
        core_relos: the CO-RE records.
        fd_array: the fds that insns name by index, as many as can be read and are asked for.
        fd_array_is_cut: there is an array, and what comes behind `fd_array` cannot be read.
        fd_array_count: how many of these the kernel shall bind before anything else.
        signature: the signature, where it is if it is still to be read, or ``None``.
        keyring_id: the keyring to verify it with.
        log_level: what the verifier shall write in its log, 0 for nothing.
        is_kernel: the call came from inside the kernel.
    """

    type: int
    name: str
    insns: bytes
    license: str
    flags: int = 0
    expected_attach_type: int = 0
    attach_btf_id: int = 0
    attach_fd: int = 0
    btf_fd: int = 0
    func_info: Records = NO_RECORDS
    line_info: Records = NO_RECORDS
    core_relos: Records = NO_RECORDS
    fd_array: tuple[int, ...] = ()
    fd_array_is_cut: bool = False
    fd_array_count: int = 0
    signature: bytes | Pointer | None = None
    keyring_id: int = 0
    log_level: int = 0
    is_kernel: bool = False


@dataclass(frozen=True, slots=True)
class LoadedProgram:
    """A snapshot of a program.

    Attributes:
        name: the name given at load.
        type: the program type.
        verdict: what the kernel says of its signature.
        keyring: the keyring that the signature was verified with.
        is_kernel: it was loaded by a program, not by user space.
        digest: SHA-256 of the insns, which an exclusive map is held against.
        license: the licence.
        expected_attach_type: the number of the attach type.
        attach_target: the kernel function or hook that it attaches to, or ``""``.
        insns: the insns with CO-RE applied and kfunc calls resolved; a reference to a map stays as
            it was passed.
        map_references: index of an insn and name of the map that it refers to.
        maps: the names of the maps that it uses, in the order of their first use.
        func_info_count: records of func_info.
        line_info_count: records of line_info.
        core_relo_count: CO-RE records.
    """

    name: str
    type: ProgType
    verdict: Verdict
    keyring: KeyringKind
    is_kernel: bool
    digest: bytes
    license: str
    expected_attach_type: int
    attach_target: str
    insns: tuple[Insn, ...]
    map_references: tuple[tuple[int, str], ...]
    maps: tuple[str, ...]
    func_info_count: int
    line_info_count: int
    core_relo_count: int


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """A snapshot of a link.

    Attributes:
        program: the name of the program.
        attach_type: the number of the attach type.
        target: what it is attached to: the name of a function or tracepoint, ``fd N``, or ``""``.
    """

    program: str
    attach_type: int
    target: str


@dataclass(frozen=True, slots=True)
class MapReference:
    """A ld_imm64 that refers to a map: to the map itself, or into its value."""

    index: int
    map: ModelMap
    value_offset: int | None


@dataclass(eq=False)
class ModelProgram(KernelObject):
    """A program.

    Attributes:
        attributes: what it was loaded with.
        digest: SHA-256 of the insns: as they were passed, or after CO-RE for an unsigned program
            with such records.
        insns: the insns, with CO-RE applied and kfunc calls resolved.
        btf: its own BTF.
        func_info: insn and type id of each function, once checked.
        line_info: insn, file name, line and place of each line, once checked.
        poisoned: insns that hold something that the kernel does not have, and what that is.
        verdict: changes when the kfunc has matched the metadata.
        keyring: the keyring of its signature.
        attach_target: the kernel function or hook that it attaches to, or ``""``.
        references: the insns that refer to maps.
        bound: maps that it holds without an insn for it (``fd_array_cnt``).
        max_ctx_offset: the end of the part of the context that it uses.
        runnable: the program as the machine runs it; ``None`` for types that it cannot run.
    """

    attributes: ProgAttributes
    digest: bytes
    insns: tuple[Insn, ...]
    btf: BtfObject | None = None
    func_info: tuple[tuple[int, int], ...] = ()
    line_info: tuple[tuple[int, int, int, int], ...] = ()
    poisoned: dict[int, str] = field(default_factory=dict)
    verdict: Verdict = Verdict.UNSIGNED
    keyring: KeyringKind = KeyringKind.NONE
    attach_target: str = ""
    references: list[MapReference] = field(default_factory=list)
    bound: list[ModelMap] = field(default_factory=list)
    max_ctx_offset: int = 0
    runnable: machine.Program | None = None

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def name(self) -> str:
        """The name given at load."""
        return self.attributes.name

    @property
    def type(self) -> ProgType:
        """The program type."""
        return ProgType(self.attributes.type)

    @property
    def is_signed(self) -> bool:
        """It came with a signature."""
        return self.attributes.signature is not None

    @property
    def label(self) -> str:
        """``prog`` and its name."""
        return f"prog {self.name}"

    @property
    def used_maps(self) -> list[ModelMap]:
        """The maps that the program keeps alive, each once."""
        return list(dict.fromkeys([*self.bound, *(use.map for use in self.references)]))

    def acquire(self) -> None:
        """Hold what the program uses; `release` lets go of it."""
        for held in (*self.used_maps, *([self.btf] if self.btf else [])):
            held.hold()

    def release(self) -> None:
        """Let go of maps and BTF."""
        for held in (*self.used_maps, *([self.btf] if self.btf else [])):
            held.drop()

    def facts_for(self, verdict: Verdict) -> ProgramFacts:
        """Return what an LSM hook sees of the program under a verdict."""
        given = self.attributes
        return ProgramFacts(given.name, given.type, verdict, self.keyring, given.is_kernel)

    def snapshot(self) -> LoadedProgram:
        """Return the program as a value."""
        given = self.attributes
        return LoadedProgram(
            name=given.name,
            type=self.type,
            verdict=self.verdict,
            keyring=self.keyring,
            is_kernel=given.is_kernel,
            digest=self.digest,
            license=given.license,
            expected_attach_type=given.expected_attach_type,
            attach_target=self.attach_target,
            insns=self.insns,
            map_references=tuple((use.index, use.map.name) for use in self.references),
            maps=tuple(used.name for used in self.used_maps),
            func_info_count=len(self.func_info),
            line_info_count=len(self.line_info),
            core_relo_count=given.core_relos.count,
        )


def insns_digest(insns: Sequence[Insn], algorithm: str = "sha256") -> bytes:
    """Return the digest of insns, fds of maps left out.

    Source: kernel/bpf/core.c bpf_prog_calc_tag, which zeroes both immediates of a ld_imm64 that
    names a map by fd: a fd differs from run to run.
    """
    by_fd = (op.PSEUDO_MAP_FD, op.PSEUDO_MAP_VALUE)
    stable = list(insns)
    for index, insn in enumerate(insns[:-1]):
        if insn.is_ld_imm64 and insn.src in by_fd:
            stable[index] = insn._replace(imm=0)
            stable[index + 1] = insns[index + 1]._replace(imm=0)
    return hashlib.new(algorithm, encode_insns(stable)).digest()
