"""The running kernel behind the protocol: only maps and a socket filter, nothing is attached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapType, ProgFlag, ProgType
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.linux.trial import verifies_signatures
from bpfseal.kernel.load import load
from bpfseal.kernel.protocol import MapCreate, ProgLoad, RunResult
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import load_signer
from support.object_writer import ObjectWriter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root")


def socket_filter(scheme: str) -> Loader:
    writer = ObjectWriter()
    writer.add_program("socket", "filter")
    writer.add_map("counts", type=MapType.HASH, key_size=4, value_size=8, max_entries=4)
    writer.add_variable("level", ".rodata", (7).to_bytes(4, "little"))
    return generate(writer.read(), scheme)


def fds() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def kernel() -> Iterator[LinuxKernel]:
    before = fds()
    yield LinuxKernel()
    assert fds() <= before, "a fd stayed open"


def test_an_unsigned_loader_makes_its_maps_and_programs(kernel: LinuxKernel) -> None:
    skeleton = load(kernel, SignedLoader(socket_filter("unsigned")), unsigned=True)
    assert list(skeleton.map_fds) == ["counts", "rodata"]
    assert list(skeleton.prog_fds) == ["filter"]
    opened = [*skeleton.map_fds.values(), *skeleton.prog_fds.values()]
    assert len(set(opened)) == 3
    for fd in opened:
        kernel.close(fd)


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_a_refused_loader_leaves_nothing_behind(kernel: LinuxKernel, scheme: str) -> None:
    """A kernel of another scheme, one without verification, or a key that it does not have."""
    pair = generate_key("p256", "unknown here")
    signer = load_signer(pair.private_key_pem, pair.certificate_pem)
    with pytest.raises(KernelError) as refused:
        load(kernel, sign_loader(SignedLoader(socket_filter(scheme)), signer))
    assert refused.value.step in ("map_create", "map_hash", "btf_load", "prog_load")


def test_a_refused_program_brings_the_verifiers_reason(kernel: LinuxKernel) -> None:
    loader = socket_filter("kfunc")
    with pytest.raises(KernelError) as refused:
        load(kernel, SignedLoader(loader), unsigned=True)
    assert refused.value.step == "prog_load"
    assert refused.value.errno_name in ("EINVAL", "ENOENT", "EACCES")


def test_a_frozen_map_is_read_only_for_user_space(kernel: LinuxKernel) -> None:
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "frozen", 4, 8, 1))
    kernel.map_update(fd, bytes(4), b"contents")
    kernel.map_freeze(fd)
    with pytest.raises(KernelError) as refused:
        kernel.map_update(fd, bytes(4), b"contents")
    assert refused.value.errno_name == "EPERM"
    kernel.close(fd)


def test_the_hash_of_a_frozen_map_is_that_of_its_value_in_whole_words(
    kernel: LinuxKernel,
) -> None:
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "hashed", 4, 5, 1))
    kernel.map_update(fd, bytes(4), b"hello")
    kernel.map_freeze(fd)
    try:
        digest = kernel.map_hash(fd)
    except KernelError as error:
        pytest.skip(f"this kernel has no map hashes ({error.errno_name}; Linux 6.18 has)")
    finally:
        kernel.close(fd)
    assert digest == hashlib.sha256(b"hello" + bytes(3)).digest()


def test_a_closed_fd_is_ebadf(kernel: LinuxKernel) -> None:
    with pytest.raises(KernelError) as refused:
        kernel.close(1 << 20)
    assert refused.value.errno_name == "EBADF"


def test_the_trial_load_says_yes_or_no(kernel: LinuxKernel) -> None:
    assert verifies_signatures(kernel).answer in (True, False)


def test_a_program_runs_without_a_context(kernel: LinuxKernel) -> None:
    """A pointer to no bytes is EINVAL (bpf_prog_test_run_syscall)."""
    insns = encode_insns([mov64_imm(0, 5), exit_insn()])
    request = ProgLoad(ProgType.SYSCALL, "five", insns, "GPL", flags=ProgFlag.SLEEPABLE)
    fd = kernel.prog_load(request)
    assert kernel.prog_run(fd, b"") == RunResult(5, b"")
    kernel.close(fd)


def test_the_kernel_says_the_sizes_of_a_map_and_the_type_of_a_program(kernel: LinuxKernel) -> None:
    """kernel/bpf/syscall.c bpf_obj_get_info_by_fd: one command for objects of every kind."""
    insns = encode_insns([mov64_imm(0, 0), exit_insn()])
    request = ProgLoad(ProgType.SYSCALL, "facts", insns, "GPL", flags=ProgFlag.SLEEPABLE)
    map_fd = kernel.map_create(MapCreate(MapType.HASH, "facts", 4, 24, 77))
    try:
        prog_fd = kernel.prog_load(request)
        try:
            assert kernel.map_info(map_fd) == (MapType.HASH, 4, 24, 77)
            assert kernel.prog_info(prog_fd) == (ProgType.SYSCALL,)
            for ask, fd in ((kernel.map_info, prog_fd), (kernel.prog_info, map_fd)):
                with pytest.raises(KernelError, match="EINVAL"):
                    ask(fd)
        finally:
            kernel.close(prog_fd)
    finally:
        kernel.close(map_fd)
    with pytest.raises(KernelError):
        kernel.map_info(0)
