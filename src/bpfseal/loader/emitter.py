"""Building blocks of a loader program: what to execute, and the blob of data that it works on.

Registers, as in tools/lib/bpf/gen_loader.c: r6 holds the context, r7 the result of the last
bpf() call, r8 the instruction that is being relocated, r9 is scratch.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    ByteOrder,
    Insn,
    alu64_imm,
    call_helper,
    encode_insns,
    exit_insn,
    jmp_imm,
    jmp_reg,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    stx_mem,
)
from bpfseal.bpf.uapi import Cmd, Helper
from bpfseal.errors import UnsupportedError
from bpfseal.limits import MAX_MAPS, MAX_METADATA
from bpfseal.loader.frame import MAX_STACK_PROGRAMS, Frame

R0, R1, R2, R3, R4, R6, R7, R8, R9, R10 = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10

MAX_KFUNC_BTFS = 256
FD_ARRAY_SIZE = 4 * (MAX_MAPS + MAX_KFUNC_BTFS)
"""Bytes of the fd array at the start of the metadata: maps first, then BTFs of kfuncs."""

PROLOGUE_SLOTS = 7
"""Slots of a loader before its cleanup block; the last one jumps over that block."""

_MAX_JUMP = 0x7FFF
_MAX_TRACE = 1023
_BLOB_ADDRESS = tuple(ld_imm64(register, op.PSEUDO_MAP_IDX_VALUE, 0)[0] for register in range(10))
"""The first slot of the blob's address, by register; the second one holds the offset."""

_WIDTH = {8: op.DW, 4: op.W, 2: op.H, 1: op.B}


class Emitter:
    """A growing loader program with its blob.

    Attributes:
        frame: the layout of the stack.
        byteorder: the target's byte order.
        traces: the loader prints what it does to the kernel's trace buffer.
        insns: the instructions so far.
        data: the blob so far; it becomes the metadata.
    """

    def __init__(self, frame: Frame, byteorder: ByteOrder, *, traces: bool = False) -> None:
        self.frame = frame
        self.byteorder = byteorder
        self.traces = traces
        self.insns: list[Insn] = []
        self.data = bytearray()
        self._cleanup = 0

    def encode(self) -> bytes:
        """Return the program in the target's byte order."""
        return encode_insns(self.insns, self.byteorder)

    # The blob

    def add_data(self, data: bytes) -> int:
        """Append bytes, padded to 8, and return their offset.

        Raises:
            UnsupportedError: the blob would be larger than `MAX_METADATA`.
        """
        offset = len(self.data)
        if offset + len(data) > MAX_METADATA:
            raise UnsupportedError(f"the metadata would be larger than {MAX_METADATA} bytes")
        self.data += data
        self.data += bytes(-len(data) % 8)
        return offset

    def add_string(self, text: str) -> tuple[int, int]:
        """Append a string and return its offset and its size with the final zero."""
        data = text.encode() + b"\0"
        return self.add_data(data), len(data)

    @staticmethod
    def fd_array_offset(index: int) -> int:
        """Offset in the blob of a slot of the fd array."""
        return 4 * index

    # Single steps

    def emit(self, *insns: Insn) -> None:
        """Append instructions."""
        self.insns += insns

    def blob_address(self, register: int, offset: int) -> None:
        """``register = &blob[offset]``."""
        self.insns += (_BLOB_ADDRESS[register], Insn(0, 0, 0, 0, offset))

    def store_blob_address(self, at: int, target: int) -> None:
        """``*(u64 *)&blob[at] = &blob[target]``."""
        self.blob_address(R0, target)
        self.blob_address(R1, at)
        self.emit(stx_mem(op.DW, R1, R0, 0))

    def blob_to_blob(self, at: int, size: int, source: int) -> None:
        """Copy `size` bytes inside the blob; the value stays in r0."""
        self.blob_address(R2, source)
        self.emit(ldx_mem(_WIDTH[size], R0, R2, 0))
        self.blob_address(R1, at)
        self.emit(stx_mem(_WIDTH[size], R1, R0, 0))

    def blob_to_ctx(self, ctx_offset: int, source: int) -> None:
        """Copy 4 bytes from the blob to the context."""
        self.blob_address(R1, source)
        self.emit(ldx_mem(op.W, R0, R1, 0), stx_mem(op.W, R6, R0, ctx_offset))

    def ctx_to_blob(self, at: int, size: int, ctx_offset: int, *, unless_zero: bool) -> None:
        """Copy from the context to the blob; with `unless_zero` a zero leaves the blob as it is."""
        self.emit(ldx_mem(_WIDTH[size], R0, R6, ctx_offset))
        if unless_zero:
            self.emit(jmp_imm(op.JEQ, R0, 0, 3))
        self.blob_address(R1, at)
        self.emit(stx_mem(_WIDTH[size], R1, R0, 0))

    def stack_to_blob(self, at: int, stack_offset: int) -> None:
        """Copy 4 bytes from the stack to the blob."""
        self.emit(ldx_mem(op.W, R0, R10, stack_offset))
        self.blob_address(R1, at)
        self.emit(stx_mem(op.W, R1, R0, 0))

    def stack_to_ctx(self, ctx_offset: int, stack_offset: int) -> None:
        """Copy 4 bytes from the stack to the context."""
        self.emit(ldx_mem(op.W, R0, R10, stack_offset), stx_mem(op.W, R6, R0, ctx_offset))

    def result_to_stack(self, stack_offset: int) -> None:
        """Keep the fd in r7 on the stack."""
        self.emit(stx_mem(op.W, R10, R7, stack_offset))

    def result_to_blob(self, at: int) -> None:
        """Keep the fd in r7 in the blob."""
        self.blob_address(R1, at)
        self.emit(stx_mem(op.W, R1, R7, 0))

    # Calls

    def sys_bpf(self, command: Cmd, attr: int, attr_size: int) -> None:
        """Call bpf() with an attribute in the blob; the result is in r7."""
        self.emit(mov64_imm(R1, command))
        self.blob_address(R2, attr)
        self.emit(mov64_imm(R3, attr_size), call_helper(Helper.SYS_BPF), mov64_reg(R7, R0))

    def find_by_name(self, name: str, kind: int) -> None:
        """Look a name up in the kernel's BTFs: r7 is the id, and above it the BTF's fd."""
        self.call_find_by_name(*self.add_string(name), kind)
        self.trace_result(f"find_by_name_kind({name},{kind:d})")

    def call_find_by_name(self, name: int, size: int, kind: int) -> None:
        """Look up the name at an offset of the blob, `size` bytes with the final zero."""
        self.blob_address(R1, name)
        self.emit(
            mov64_imm(R2, size),
            mov64_imm(R3, kind),
            mov64_imm(R4, 0),
            call_helper(Helper.BTF_FIND_BY_NAME_KIND),
            mov64_reg(R7, R0),
        )

    def close_stack_fd(self, stack_offset: int) -> None:
        """Close the fd at a stack offset, if it is positive."""
        self.call_close_of_stack(stack_offset)
        self._trace_close()

    def close_blob_fd(self, at: int) -> None:
        """Close the fd in the blob, if it is positive."""
        self.call_close_of_blob(at)
        self._trace_close()

    def call_close_of_stack(self, stack_offset: int) -> None:
        """Close the fd at a stack offset, and print nothing yet."""
        self.emit(ldx_mem(op.W, R1, R10, stack_offset))
        self._call_close()

    def call_close_of_blob(self, at: int) -> None:
        """Close the fd in the blob, and print nothing yet."""
        self.blob_address(R0, at)
        self.emit(ldx_mem(op.W, R1, R0, 0))
        self._call_close()

    def _call_close(self) -> None:
        self.emit(
            jmp_imm(op.JSLE, R1, 0, self._close_insns - 4),
            mov64_reg(R9, R1),
            call_helper(Helper.SYS_CLOSE),
        )

    def _trace_close(self) -> None:
        self.trace("close(%d) = %d", R9, R0)

    @property
    def _close_insns(self) -> int:
        """Instructions that close a fd in the blob."""
        return 12 if self.traces else 6

    # Tracing

    def trace(self, text: str, *registers: int) -> None:
        """Print a line with the values of up to two registers, if the loader traces at all."""
        if not self.traces:
            return
        self.call_trace(*self.add_string(text[:_MAX_TRACE]), *registers)

    def call_trace(self, text: int, size: int, *registers: int) -> None:
        """Print the line at an offset of the blob, `size` bytes with the final zero."""
        self.blob_address(R1, text)
        self.emit(
            mov64_imm(R2, size),
            *(mov64_reg(R3 + n, register) for n, register in enumerate(registers)),
            call_helper(Helper.TRACE_PRINTK),
        )

    def trace_value(self, text: str, register: int) -> None:
        """Print a line with the value of one register behind it."""
        fits = len(text) < _MAX_TRACE + 1 - len(" r=%d") - 2
        self.trace(text + " r=%d" if fits else text, register)

    def trace_result(self, text: str) -> None:
        """Print a line with the result of the last call behind it."""
        self.trace_value(text, R7)

    # Control flow

    def prologue(self, program_count: int, map_count: int, kept_fds: int | None) -> None:
        """Emit the start of every loader: save the context, clear the stack, the cleanup block.

        The cleanup block closes whatever fd is positive in the used part of the frame and in the
        fd array, and returns r7. Every error jumps back to it.

        Args:
            program_count: functions of the object; so many fds the frame is taken to hold.
            map_count: maps of the object.
            kept_fds: where in the blob the program fds are kept, if not in the frame.

        Raises:
            UnsupportedError: the cleanup block is too long for a jump.
        """
        self.save_ctx_and_clear_stack()
        in_frame = 0 if kept_fds is not None else program_count
        in_blob = program_count if kept_fds is not None else 0
        assert in_frame <= MAX_STACK_PROGRAMS  # noqa: S101 (the generator decides where fds go)
        words = (self.frame.prog_fd(in_frame) + self.frame.size) // 4
        length = 3 * words + 2 + self._close_insns * (map_count + in_blob)
        if length > _MAX_JUMP:
            raise self._too_far(length)
        self.emit(jump(length))
        self._cleanup = len(self.insns)
        for word in range(words):
            self.clean_stack_fd(4 * word - self.frame.size)
        for index in range(map_count):
            self.close_blob_fd(self.fd_array_offset(index))
        for index in range(in_blob):
            self.close_blob_fd((kept_fds or 0) + 4 * index)
        self.emit(mov64_reg(R0, R7), exit_insn())

    def clean_stack_fd(self, stack_offset: int) -> None:
        """Close the fd at a stack offset in the cleanup block, if it is positive."""
        self.emit(
            ldx_mem(op.W, R1, R10, stack_offset),
            jmp_imm(op.JSLE, R1, 0, 1),
            call_helper(Helper.SYS_CLOSE),
        )

    def save_ctx_and_clear_stack(self) -> None:
        """Emit what every loader does first."""
        self.emit(
            mov64_reg(R6, R1),
            mov64_reg(R1, R10),
            alu64_imm(op.ADD, R1, -self.frame.size),
            mov64_imm(R2, self.frame.size),
            mov64_imm(R3, 0),
            call_helper(Helper.PROBE_READ_KERNEL),
        )

    def resume(self, insns: Sequence[Insn]) -> None:
        """Go on behind these instructions, which begin as `prologue` does."""
        self.insns = list(insns)
        self._cleanup = PROLOGUE_SLOTS

    def jump_to_cleanup(self, operation: int, register: int, imm: int) -> None:
        """``if register operation imm goto cleanup``."""
        self.emit(jmp_imm(operation, register, imm, self._distance_to_cleanup()))

    def jump_to_cleanup_unless_equal(self, left: int, right: int) -> None:
        """``if left != right goto cleanup`` for two registers."""
        self.emit(jmp_reg(op.JNE, left, right, self._distance_to_cleanup()))

    def _distance_to_cleanup(self) -> int:
        """Return the jump offset of the next instruction to the cleanup block.

        Raises:
            UnsupportedError: the cleanup block is more than 32768 instructions away.
        """
        distance = self._cleanup - len(self.insns) - 1
        if distance < -_MAX_JUMP - 1:
            raise self._too_far(len(self.insns))
        return distance

    @staticmethod
    def _too_far(count: int) -> UnsupportedError:
        return UnsupportedError(
            f"the loader grows to more than {count} instructions, too far for a jump",
            hint="split the object",
        )

    def check_reach(self) -> None:
        """Stop early where the next check could not jump back to the cleanup block.

        Raises:
            UnsupportedError: it is too far away.
        """
        self._distance_to_cleanup()

    def check_result(self) -> None:
        """Jump to the cleanup block if r7 is an error."""
        self.jump_to_cleanup(op.JSLT, R7, 0)
