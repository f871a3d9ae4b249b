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

from bpfseal.bpf.insn import ByteOrder, decode_insns
from bpfseal.bpf.insn import jump as jump_insn
from bpfseal.loader.checks import CHECKS
from bpfseal.loader.emitter import PROLOGUE_SLOTS, Emitter
from bpfseal.loader.frame import Frame
from bpfseal.scheme import Scheme

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
    emit_check = CHECKS.get(scheme.name)
    slots = decode_insns(insns, byteorder)
    if emit_check is None or len(slots) <= PROLOGUE_SLOTS:
        return None
    jump = slots[PROLOGUE_SLOTS - 1]
    start = PROLOGUE_SLOTS + jump.off
    if jump != jump_insn(jump.off) or not PROLOGUE_SLOTS < start < min(len(slots), _MAX_START):
        return None
    emitter = Emitter(Frame(has_hash=scheme.has_loader_btf), byteorder)
    emitter.save_ctx_and_clear_stack()
    if emitter.insns != slots[: PROLOGUE_SLOTS - 1]:
        return None
    emitter.resume(slots[:start])
    check = emit_check(emitter)
    if len(emitter.insns) > len(slots):
        return None
    digest = check.read(slots, byteorder)
    check.fill(emitter, digest)
    return digest if emitter.insns[start:] == slots[start : len(emitter.insns)] else None
