"""Loaders made by hand, and the steps of a skeleton one by one, so that each can be varied."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    encode_insns,
    exit_insn,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, KeyringId, MapType, ProgFlag, ProgType
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.kernel.load import LoadedSkeleton, load
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.lsm import Hook
from bpfseal.kernel.model.profile import KFUNC_SERIES, Profile
from bpfseal.kernel.protocol import Kernel, MapCreate, ProgLoad
from bpfseal.loader.checks import LOADER_BTF, VERIFY_KFUNC_ID
from bpfseal.loader.model import LOADER_LICENSE, Loader, MapEntry
from bpfseal.signing import cms
from bpfseal.signing.keygen import KeyPair, generate
from bpfseal.signing.signer import load_signer

METADATA = b"\xff\xff\xff\xff" + b"the metadata of this loader."
"""It begins, as all metadata does, with a fd that the loader's cleanup closes if it is positive.
As all metadata it fills whole 8-byte words."""

FRAME_SIZE = 168
HASH_AT = 8 - FRAME_SIZE
PROLOGUE_SLOTS = 7
CTX_SIZE = 24 + 16
MAP_FD_AT = 24


def key_pair(key_type: str = "p256") -> KeyPair:
    """Return the one key of this type in a test run."""
    return _key_pair(key_type)


@cache
def _key_pair(key_type: str) -> KeyPair:
    return generate(key_type, "loader signing")


def sign(payload: bytes, key_type: str = "p256") -> bytes:
    made = key_pair(key_type)
    return cms.build(payload, load_signer(made.private_key_pem, made.certificate_pem))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def kfunc_call(
    digest: bytes, *, size: int = 32, func: int = VERIFY_KFUNC_ID, off: int = 0
) -> list[Insn]:
    """The call of the check block, up to r7 = r0."""
    words = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, 32, 8)]
    return [
        *ld_imm64(1, op.PSEUDO_MAP_IDX, 0),
        mov64_reg(2, 10),
        alu64_imm(op.ADD, 2, HASH_AT),
        *(
            insn
            for index, word in enumerate(words)
            for insn in (*ld_imm64(3, 0, word, word >> 32), stx_mem(op.DW, 2, 3, 8 * index))
        ),
        mov64_imm(3, size),
        Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL_PROG_BTF, off, func),
        mov64_reg(7, 0),
    ]


def loader_insns(*calls: list[Insn], body: list[Insn] | None = None) -> bytes:
    """A loader: prologue, cleanup block, then each call with its jump to cleanup, and the body."""
    cleanup = [
        *ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0),
        ldx_mem(op.W, 1, 1, 0),
        jmp_imm(op.JSET, 1, -0x80000000, 2),
        jmp_imm(op.JEQ, 1, 0, 1),
        call_helper(Helper.SYS_CLOSE),
        mov64_reg(0, 7),
        exit_insn(),
    ]
    prologue = [
        mov64_reg(6, 1),
        mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -FRAME_SIZE),
        mov64_imm(2, FRAME_SIZE),
        mov64_imm(3, 0),
        call_helper(Helper.PROBE_READ_KERNEL),
        jump(len(cleanup)),
    ]
    insns = [*prologue, *cleanup]
    for call in calls:
        insns += call
        insns.append(jmp_imm(op.JNE, 0, 0, PROLOGUE_SLOTS - 1 - len(insns)))
    return encode_insns([*insns, *(body or []), mov64_imm(0, 0), exit_insn()])


def create_map_body() -> list[Insn]:
    """Create an ARRAY map of one 8-byte entry by sys_bpf and put its fd in the context."""
    attr_at = -160
    fields = [(0, MapType.ARRAY), (4, 4), (8, 8), (12, 1)]
    return [
        *(st_mem(op.DW, 10, attr_at + offset, 0) for offset in range(0, 96, 8)),
        *(st_mem(op.W, 10, attr_at + offset, value) for offset, value in fields),
        mov64_imm(1, 0),
        mov64_reg(2, 10),
        alu64_imm(op.ADD, 2, attr_at),
        mov64_imm(3, 92),
        call_helper(Helper.SYS_BPF),
        stx_mem(op.W, 6, 0, MAP_FD_AT),
    ]


INSNS = loader_insns(kfunc_call(sha256(METADATA)), body=create_map_body())
"""A good loader: it checks its metadata and makes one map."""

MAP = MapEntry("", "counts", MapType.ARRAY, 4, 8, 1)


def make_loader(insns: bytes = INSNS, metadata: bytes = METADATA) -> Loader:
    return Loader("kfunc", "demo", insns, metadata, LOADER_BTF, (MAP,), ())


def sign_loader(loader: Loader) -> SignedLoader:
    signature = Signature(sign(loader.insns + loader.btf), key_pair().certificate_der)
    return SignedLoader(loader, (signature,))


def load_by_hand(kernel: Kernel, signed: SignedLoader, *, signature: int = 0) -> LoadedSkeleton:
    """Load what no generator made: nothing is compared before the first call.

    Without a signature it is loaded unsigned.
    """
    unsigned = not signed.signatures
    return load(kernel, signed, signature=signature, check_metadata=False, unsigned=unsigned)


def trusting_kernel(*hooks: Hook, profile: Profile = KFUNC_SERIES) -> ModelKernel:
    """A kernel whose session keyring holds the signer's key."""
    kernel = ModelKernel(profile=profile, hooks=hooks)
    kernel.keyrings.add_key(KeyringId.SESSION, key_pair().certificate_der)
    return kernel


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a skeleton with everything that can go wrong in them.

    `signature` ``None`` means the right one; `is_signed` tells whether there is one at all.
    """

    insns: bytes = INSNS
    contents: bytes | None = METADATA
    value_size: int = len(METADATA)
    exclusive_to: bytes | None = sha256(INSNS)
    is_frozen: bool = True
    map_type: MapType = MapType.ARRAY
    max_entries: int = 1
    btf: bytes | None = LOADER_BTF
    is_signed: bool = True
    signature: bytes | None = None
    keyring_id: int = KeyringId.SESSION
    license: str = LOADER_LICENSE
    flags: int = ProgFlag.SLEEPABLE
    fd_array_cnt: int = 0
    type: ProgType = ProgType.SYSCALL

    def load(self, kernel: ModelKernel) -> int:
        """Make the map and load the program; return its fd."""
        map_fd = kernel.map_create(
            MapCreate(
                self.map_type,
                "meta",
                4,
                self.value_size,
                self.max_entries,
                excl_prog_hash=self.exclusive_to,
            )
        )
        if self.contents is not None:
            kernel.map_update(map_fd, bytes(4), self.contents)
        if self.is_frozen:
            kernel.map_freeze(map_fd)
        signature = None
        if self.is_signed:
            right = self.signature is None
            signature = sign(self.insns + (self.btf or b"")) if right else self.signature
        return kernel.prog_load(
            ProgLoad(
                self.type,
                "loader",
                self.insns,
                self.license,
                flags=self.flags,
                fd_array=(map_fd,),
                fd_array_cnt=self.fd_array_cnt,
                btf_fd=0 if self.btf is None else kernel.btf_load(self.btf),
                signature=signature,
                keyring_id=self.keyring_id,
            )
        )

    def run(self, kernel: ModelKernel) -> int:
        """Load and run; return the loader's return value."""
        return kernel.prog_run(self.load(kernel), bytes(CTX_SIZE)).retval
