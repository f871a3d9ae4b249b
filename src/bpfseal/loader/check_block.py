"""Read the digest of the metadata out of a loader's instructions.

A loader that checks its metadata carries the digest in immediates of its own, which its signature
covers. Whoever holds the loader can so tell, before the first call to a kernel, whether metadata
and instructions belong together.

The digest is believed only where it is what the loader checks first: behind the prologue, in the
very block that `bpfseal.loader.checks` emits at that place.

Example:
    >>> carried_digest(loader.insns, loader.scheme, loader.byteorder) == loader.metadata_digest
    True
"""

from __future__ import annotations

from dataclasses import dataclass

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, decode_insns, exit_insn, ld_imm64
from bpfseal.bpf.insn import jump as jump_insn
from bpfseal.errors import InputError
from bpfseal.loader.checks import CHECKS
from bpfseal.loader.emitter import PROLOGUE_SLOTS, R1, Emitter
from bpfseal.loader.frame import Frame
from bpfseal.scheme import SCHEMES, Scheme

_MAX_START = 0x7F00
"""Slots from which a jump back to the cleanup block still reaches."""


def carried_digest(insns: bytes, scheme: Scheme, byteorder: ByteOrder) -> bytes | None:
    """Return the SHA-256 of the metadata that a loader's instructions check for.

    Args:
        insns: the loader program.
        scheme: the scheme of the loader.
        byteorder: the byte order of the machine that the loader is for.

    Returns:
        32 bytes, or ``None`` for a loader that does not begin with the check of this scheme.

    Raises:
        InputError: the length is no multiple of 8 bytes.
    """
    found = _read_check(insns, scheme, byteorder)
    return found.digest if found else None


@dataclass(frozen=True, slots=True)
class FoundCheck:
    """A check block.

    Attributes:
        scheme_name: the scheme that it belongs to.
        digest: the SHA-256 of the metadata that it asks for.
        start: its first slot.
        end: the slot behind it.
    """

    scheme_name: str
    digest: bytes
    start: int
    end: int


def find_check(insns: bytes, byteorder: ByteOrder) -> FoundCheck | None:
    """Return the check block that a loader begins with, of whatever scheme.

    Raises:
        InputError: the length is no multiple of 8 bytes.
    """
    if not _may_check(insns, byteorder):
        return None
    for name in CHECKS:
        if (found := _read_check(insns, SCHEMES[name], byteorder)) is not None:
            return found
    return None


def _may_check(insns: bytes, byteorder: ByteOrder) -> bool:
    """Whether the block behind the prologue begins as all checks do, with the map's address."""
    jump_at = (PROLOGUE_SLOTS - 1) * INSN_SIZE
    offset = int.from_bytes(insns[jump_at + 2 : jump_at + 4], byteorder, signed=True)
    first = ld_imm64(R1, op.PSEUDO_MAP_IDX, 0)[0].encode(byteorder)
    return offset >= 0 and insns.startswith(first, (PROLOGUE_SLOTS + offset) * INSN_SIZE)


def _read_check(insns: bytes, scheme: Scheme, byteorder: ByteOrder) -> FoundCheck | None:
    emit_check = CHECKS.get(scheme.name)
    if len(insns) % INSN_SIZE:
        raise InputError(f"{len(insns)} bytes of instructions are no multiple of {INSN_SIZE}")
    if emit_check is None or len(insns) <= PROLOGUE_SLOTS * INSN_SIZE:
        return None
    head = decode_insns(insns[: PROLOGUE_SLOTS * INSN_SIZE], byteorder)
    jump = head[-1]
    start = PROLOGUE_SLOTS + jump.off
    last = min(len(insns) // INSN_SIZE, _MAX_START)
    if jump != jump_insn(jump.off) or not PROLOGUE_SLOTS < start < last:
        return None
    emitter = Emitter(Frame(has_hash=scheme.has_loader_btf), byteorder)
    emitter.save_ctx_and_clear_stack()
    if emitter.insns != head[:-1]:
        return None
    # Nothing between prologue and block, or behind the block, matters: it is not decoded.
    emitter.resume([*head, *([exit_insn()] * (start - PROLOGUE_SLOTS))])
    check = emit_check(emitter)
    end = len(emitter.insns)
    slots = decode_insns(insns[start * INSN_SIZE : end * INSN_SIZE], byteorder)
    if len(slots) != end - start:
        return None
    digest = check.read([*emitter.insns[:start], *slots], byteorder)
    check.fill(emitter, digest)
    if emitter.insns[start:] != slots:
        return None
    return FoundCheck(scheme.name, digest, start, end)
