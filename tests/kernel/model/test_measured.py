"""What was measured on a kernel with the series, case by case (kfunc scheme).

Each test is a row: which call answers, and with what.
"""

from __future__ import annotations

from dataclasses import replace
from errno import (
    EACCES,
    EBADF,
    EBADMSG,
    EINVAL,
    EKEYREJECTED,
    EKEYREVOKED,
    ENOENT,
    ENOKEY,
    EPERM,
)

import pytest

from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import KeyringId, MapType, ProgType
from bpfseal.btf.builder import BtfBuilder
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SyntheticBtf
from bpfseal.kernel.model.refusal import ENOTSUPP
from bpfseal.kernel.model.verdict import KeyringKind, Verdict
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader.checks import LOADER_BTF

from ..support import (
    CTX_SIZE,
    INSNS,
    METADATA,
    Steps,
    key_pair,
    kfunc_call,
    loader_insns,
    sha256,
    sign,
    trusting_kernel,
)

GOOD = Steps()
TAMPERED = INSNS[:-16] + encode_insns([mov64_imm(0, 1), exit_insn()])


def refused(steps: Steps, kernel: ModelKernel | None = None) -> tuple[int, str]:
    """Return errno and verifier log of a load that is refused."""
    with pytest.raises(KernelError) as error:
        steps.load(kernel or trusting_kernel())
    return error.value.errno, error.value.log


def load_errno(steps: Steps, kernel: ModelKernel | None = None) -> int:
    return refused(steps, kernel)[0]


@pytest.mark.parametrize("key_type", ["rsa2048", "rsa4096", "p256", "p384"])
def test_good_with_each_kind_of_key(key_type: str) -> None:
    kernel = ModelKernel()
    kernel.keyrings.add_key(KeyringId.SESSION, key_pair(key_type).certificate_der)
    steps = replace(GOOD, signature=sign(INSNS + LOADER_BTF, key_type))
    assert steps.run(kernel) == 0
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED
    assert kernel.programs[0].keyring is KeyringKind.USER


def test_good_with_a_keyring_by_serial() -> None:
    kernel = ModelKernel()
    serial = kernel.keyrings.add_keyring("mine")
    kernel.keyrings.add_key(serial, key_pair().certificate_der)
    assert replace(GOOD, keyring_id=serial).run(kernel) == 0


@pytest.mark.parametrize(
    ("keyring_id", "kind"),
    [(KeyringId.BUILTIN, KeyringKind.BUILTIN), (KeyringId.SECONDARY, KeyringKind.SECONDARY)],
)
def test_good_with_a_builtin_key(keyring_id: int, kind: KeyringKind) -> None:
    kernel = ModelKernel()
    kernel.keyrings.add_key(KeyringId.BUILTIN, key_pair().certificate_der)
    assert replace(GOOD, keyring_id=keyring_id).run(kernel) == 0
    assert kernel.programs[0].keyring is kind


def test_good_with_a_user_key_in_the_user_session_keyring_too() -> None:
    kernel = ModelKernel()
    kernel.keyrings.add_key(KeyringId.USER, key_pair().certificate_der)
    assert replace(GOOD, keyring_id=KeyringId.USER_SESSION).run(kernel) == 0


def test_the_same_program_run_again_is_eperm() -> None:
    kernel = trusting_kernel()
    fd = GOOD.load(kernel)
    assert [kernel.prog_run(fd, bytes(CTX_SIZE)).retval for _ in range(2)] == [0, -EPERM]


def test_the_kfunc_called_twice_in_one_run_is_eperm() -> None:
    call = kfunc_call(sha256(METADATA))
    insns = loader_insns(call, call)
    steps = replace(GOOD, insns=insns, exclusive_to=sha256(insns))
    kernel = trusting_kernel()
    assert steps.run(kernel) == -EPERM
    assert kernel.programs[0].verdict is Verdict.METADATA_VERIFIED


@pytest.mark.parametrize("insns", [TAMPERED, INSNS[:-8]], ids=["changed", "truncated"])
@pytest.mark.parametrize("bound_to", ["signed", "loaded"])
def test_tampered_insns_are_ekeyrejected_whatever_the_map_is_bound_to(
    insns: bytes, bound_to: str
) -> None:
    digest = sha256(INSNS if bound_to == "signed" else insns)
    steps = replace(GOOD, insns=insns, exclusive_to=digest, signature=sign(INSNS + LOADER_BTF))
    assert load_errno(steps) == EKEYREJECTED


def test_a_flipped_last_byte_of_the_signature_is_ekeyrejected() -> None:
    cms = sign(INSNS + LOADER_BTF)
    assert load_errno(replace(GOOD, signature=cms[:-1] + bytes([cms[-1] ^ 1]))) == EKEYREJECTED


def test_the_signature_of_another_loader_is_ekeyrejected() -> None:
    assert load_errno(replace(GOOD, signature=sign(TAMPERED + LOADER_BTF))) == EKEYREJECTED


def test_a_signature_over_insns_and_btf_without_prog_btf_fd_is_ekeyrejected() -> None:
    steps = replace(GOOD, btf=None, signature=sign(INSNS + LOADER_BTF))
    assert load_errno(steps) == EKEYREJECTED


def test_a_changed_loader_btf_is_ekeyrejected() -> None:
    renamed = LOADER_BTF.replace(b"\0hash\0", b"\0hush\0")
    steps = replace(GOOD, btf=renamed, signature=sign(INSNS + LOADER_BTF))
    assert load_errno(steps) == EKEYREJECTED


def test_a_signature_over_insns_alone_with_a_btf_given_is_ekeyrejected() -> None:
    assert load_errno(replace(GOOD, signature=sign(INSNS))) == EKEYREJECTED


@pytest.mark.parametrize(
    "signature", [b"\xaa" * 300, sign(INSNS + LOADER_BTF)[:-1], b""], ids=["garbage", "cut", "0"]
)
def test_a_signature_that_does_not_parse_is_ebadmsg(signature: bytes) -> None:
    assert load_errno(replace(GOOD, signature=signature)) == EBADMSG


def test_trailing_bytes_are_ignored_up_to_8192_in_all() -> None:
    cms = sign(INSNS + LOADER_BTF)
    assert replace(GOOD, signature=cms.ljust(8192, b"\0")).run(trusting_kernel()) == 0
    assert load_errno(replace(GOOD, signature=cms.ljust(8193, b"\0"))) == EINVAL


@pytest.mark.parametrize(
    "keyring_id",
    [KeyringId.SESSION, KeyringId.USER, KeyringId.BUILTIN, KeyringId.SECONDARY, KeyringId.PLATFORM],
)
def test_no_such_key_in_the_keyring_is_enokey(keyring_id: int) -> None:
    assert load_errno(replace(GOOD, keyring_id=keyring_id), ModelKernel()) == ENOKEY


def test_the_serial_of_the_key_itself_is_enokey() -> None:
    kernel = ModelKernel()
    serial = kernel.keyrings.add_key(KeyringId.SESSION, key_pair().certificate_der)
    assert load_errno(replace(GOOD, keyring_id=serial), kernel) == ENOKEY


@pytest.mark.parametrize("keyring_id", [-1, -2, 3, -9, -100, 0x7FFFFFFF])
def test_a_keyring_that_cannot_be_resolved_is_einval(keyring_id: int) -> None:
    assert load_errno(replace(GOOD, keyring_id=keyring_id)) == EINVAL


def test_a_revoked_key_is_ekeyrevoked() -> None:
    kernel = ModelKernel()
    kernel.keyrings.revoke(kernel.keyrings.add_key(KeyringId.SESSION, key_pair().certificate_der))
    assert load_errno(GOOD, kernel) == EKEYREVOKED


@pytest.mark.parametrize("position", [4, 11, len(METADATA) - 1])
def test_metadata_changed_in_any_byte_is_ebadmsg(position: int) -> None:
    changed = bytearray(METADATA)
    changed[position] ^= 1
    assert replace(GOOD, contents=bytes(changed)).run(trusting_kernel()) == -EBADMSG


def test_a_map_that_was_never_filled_is_ebadmsg() -> None:
    assert replace(GOOD, contents=None).run(trusting_kernel()) == -EBADMSG


def test_a_map_that_is_8_zero_bytes_larger_is_ebadmsg() -> None:
    contents = METADATA + bytes(8)
    steps = replace(GOOD, contents=contents, value_size=len(contents))
    assert steps.run(trusting_kernel()) == -EBADMSG


def test_the_hash_is_over_the_value_size_rounded_up_to_8() -> None:
    """Leaving off a last zero byte of the metadata passes."""
    full = METADATA[:-1] + b"\0"
    insns = loader_insns(kfunc_call(sha256(full)))
    steps = replace(GOOD, insns=insns, exclusive_to=sha256(insns))
    assert replace(steps, contents=full[:-1], value_size=len(full) - 1).run(trusting_kernel()) == 0


@pytest.mark.parametrize("contents", [METADATA, bytes(len(METADATA))], ids=["same", "changed"])
def test_a_map_that_is_not_frozen_is_eperm(contents: bytes) -> None:
    assert replace(GOOD, contents=contents, is_frozen=False).run(trusting_kernel()) == -EPERM


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("contents", [METADATA, bytes(len(METADATA))], ids=["same", "changed"])
def test_a_map_that_is_not_exclusive_is_einval(contents: bytes, is_frozen: bool) -> None:
    steps = replace(GOOD, contents=contents, is_frozen=is_frozen, exclusive_to=None)
    assert steps.run(trusting_kernel()) == -EINVAL


def test_a_map_exclusive_to_another_program_is_eacces_at_load() -> None:
    errno, log = refused(replace(GOOD, exclusive_to=sha256(b"another")))
    assert (errno, log) == (EACCES, "program's hash doesn't match map's excl_prog_hash")


def test_fd_array_cnt_1_is_eacces_because_the_digest_is_not_computed_yet() -> None:
    errno, log = refused(replace(GOOD, fd_array_cnt=1))
    assert (errno, log) == (EACCES, "program's hash doesn't match map's excl_prog_hash")


def test_max_entries_2_is_524_at_load() -> None:
    errno, log = refused(replace(GOOD, max_entries=2))
    assert errno == ENOTSUPP
    assert log.startswith("invalid access to map value pointer")


def test_a_hash_map_is_einval_at_load() -> None:
    assert load_errno(replace(GOOD, map_type=MapType.HASH)) == EINVAL


def test_an_unsigned_loader_with_its_btf_is_eperm_at_run() -> None:
    kernel = trusting_kernel()
    assert replace(GOOD, is_signed=False).run(kernel) == -EPERM
    assert kernel.programs[0].verdict is Verdict.UNSIGNED
    assert kernel.programs[0].keyring is KeyringKind.NONE


def test_an_unsigned_loader_without_btf_is_einval_at_load() -> None:
    assert load_errno(replace(GOOD, is_signed=False, btf=None)) == EINVAL


def _with_function(name: str) -> bytes:
    builder = BtfBuilder()
    proto = builder.add_func_proto(builder.add_int("int", 4, signed=True), [])
    builder.add_ptr(0)
    builder.add_func(name, proto)
    return builder.encode()


def test_a_func_name_unknown_to_the_kernel_is_enoent() -> None:
    assert load_errno(replace(GOOD, btf=_with_function("no_such_kfunc"))) == ENOENT


def test_a_known_function_that_is_no_kfunc_for_this_type_is_eacces() -> None:
    kernel = ModelKernel(kernel_btf=SyntheticBtf(functions=("vfs_read",)))
    kernel.keyrings.add_key(KeyringId.SESSION, key_pair().certificate_der)
    errno, log = refused(replace(GOOD, btf=_with_function("vfs_read")), kernel)
    assert (errno, log) == (EACCES, "calling kernel function vfs_read is not allowed")


@pytest.mark.parametrize(
    ("func", "off"), [(1, 0), (0, 0), (99, 0), (-1, 0), (4, 1)], ids=lambda value: str(value)
)
def test_a_type_id_that_is_no_func_or_a_non_zero_off_is_einval(func: int, off: int) -> None:
    insns = loader_insns(kfunc_call(sha256(METADATA), func=func, off=off))
    assert load_errno(replace(GOOD, insns=insns, exclusive_to=sha256(insns))) == EINVAL


def test_r3_of_16_is_einval_at_run() -> None:
    insns = loader_insns(kfunc_call(sha256(METADATA), size=16))
    steps = replace(GOOD, insns=insns, exclusive_to=sha256(insns))
    assert steps.run(trusting_kernel()) == -EINVAL


def test_a_licence_that_is_not_gpl_compatible_is_einval() -> None:
    errno, log = refused(replace(GOOD, license="Proprietary"))
    message = "cannot call kernel function from non-GPL compatible program"
    assert (errno, log) == (EINVAL, message)


def test_without_sleepable_it_is_einval() -> None:
    errno, log = refused(replace(GOOD, flags=0))
    assert (errno, log) == (EINVAL, "Syscall programs can only be sleepable")


def test_from_another_program_type_the_kfunc_is_not_allowed() -> None:
    errno, log = refused(replace(GOOD, type=ProgType.KPROBE, flags=0))
    message = "calling kernel function bpf_loader_verify_metadata is not allowed"
    assert (errno, log) == (EACCES, message)


@pytest.mark.parametrize(
    ("kind", "errno"), [("map", EINVAL), ("closed", EBADF), ("vmlinux", EACCES)]
)
def test_prog_btf_fd_of_another_kind(kind: str, errno: int) -> None:
    kernel = trusting_kernel()
    map_fd = kernel.map_create(MapCreate(MapType.ARRAY, "meta", 4, 8, 1))
    fds = {"map": map_fd, "closed": 99, "vmlinux": kernel.open_kernel_btf()}
    with pytest.raises(KernelError) as refusal:
        kernel.prog_load(
            ProgLoad(ProgType.SYSCALL, "loader", INSNS, "GPL", fd_array=(map_fd,), btf_fd=fds[kind])
        )
    assert refusal.value.errno == errno


def test_prog_btf_fd_is_resolved_before_the_signature_is_looked_at() -> None:
    kernel = trusting_kernel()
    with pytest.raises(KernelError) as refusal:
        kernel.prog_load(
            ProgLoad(ProgType.SYSCALL, "loader", INSNS, "GPL", btf_fd=99, signature=b"")
        )
    assert refusal.value.errno == EBADF


def test_an_info_call_before_the_load_changes_nothing() -> None:
    kernel = trusting_kernel()
    fd = GOOD.load(kernel)
    [map_fd] = [fd for fd, label in kernel.open_fds.items() if label == "map meta"]
    assert kernel.map_hash(map_fd) == sha256(METADATA)
    assert kernel.prog_run(fd, bytes(CTX_SIZE)).retval == 0
