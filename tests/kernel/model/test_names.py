"""The kernel's names (BTF and symbols), keyrings' ids, and fds."""

from __future__ import annotations

from errno import EBADF, EBADMSG, EINVAL, ENOKEY
from pathlib import Path

import pytest

from bpfseal.bpf.uapi import KeyringId
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError, KernelError
from bpfseal.kernel.model.fds import FdTable, OpenFile
from bpfseal.kernel.model.kernel_btf import (
    RUNNING_KERNEL,
    BtfFile,
    ExtendedBtf,
    SyntheticBtf,
    SyntheticSymbols,
    choose_kernel_btf,
)
from bpfseal.kernel.model.keyring import Keyrings
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.verdict import KeyringKind

from ..support import key_pair


def small_btf() -> tuple[bytes, int, int]:
    """Return a BTF with a STRUCT and a FUNC of the same name, and their ids."""
    builder = BtfBuilder()
    struct = builder.add_struct("inode", 0, [])
    proto = builder.add_func_proto(0, [])
    func = builder.add_func("inode", proto)
    return builder.encode(), struct, func


def test_a_file_finds_a_name_by_its_kind() -> None:
    raw, struct, func = small_btf()
    btf = BtfFile(raw)
    assert btf.find("inode", Kind.STRUCT) == struct
    assert btf.find("inode", Kind.FUNC) == func == btf.known("inode", Kind.FUNC)
    assert btf.find("inode", Kind.UNION) is None
    assert btf.find("node", Kind.STRUCT) is None
    assert btf.name_of(func, Kind.FUNC) == "inode"
    assert btf.name_of(func, Kind.STRUCT) is None
    assert btf.name_of(99, Kind.FUNC) is None
    assert btf.assumed == []


def test_the_synthetic_btf_has_every_name_but_knows_only_those_asked_for() -> None:
    btf = SyntheticBtf(functions=("vfs_read",))
    assert btf.known("vfs_read", Kind.FUNC) is not None
    assert btf.known("inode", Kind.STRUCT) is None
    found = btf.find("inode", Kind.STRUCT)
    assert found == btf.known("inode", Kind.STRUCT)
    assert found is not None
    assert btf.name_of(found, Kind.STRUCT) == "inode"
    assert btf.assumed == ["struct inode"]


def test_an_extended_btf_adds_functions_that_are_not_there_yet() -> None:
    raw, _, func = small_btf()
    btf = ExtendedBtf(BtfFile(raw), ["inode", "bpf_new"])
    assert btf.find("inode", Kind.FUNC) == func
    added = btf.known("bpf_new", Kind.FUNC)
    assert added is not None
    assert btf.name_of(added, Kind.FUNC) == "bpf_new"
    assert btf.find("bpf_new", Kind.STRUCT) is None


def test_synthetic_symbols_are_stable_and_say_what_they_assumed() -> None:
    symbols = SyntheticSymbols()
    assert symbols.address("jiffies") == symbols.address("jiffies") != symbols.address("other")
    assert symbols.assumed == ["jiffies", "other"]


def test_a_file_that_is_named_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(small_btf()[0])
    assert choose_kernel_btf(path).description == str(path)


def test_a_file_that_is_named_and_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        choose_kernel_btf(tmp_path / "missing")


def test_without_a_running_kernels_btf_it_is_synthetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpfseal.kernel.model.kernel_btf.RUNNING_KERNEL", tmp_path / "missing")
    assert isinstance(choose_kernel_btf(), SyntheticBtf)


def test_a_real_kernels_btf_answers() -> None:
    if not RUNNING_KERNEL.exists():
        pytest.skip("the running kernel's BTF (CONFIG_DEBUG_INFO_BTF) is missing")
    btf = choose_kernel_btf()
    found = btf.find("task_struct", Kind.STRUCT)
    assert found is not None
    assert btf.name_of(found, Kind.STRUCT) == "task_struct"


@pytest.mark.parametrize(
    ("keyring_id", "kind"),
    [(0, "BUILTIN"), (1, "SECONDARY"), (2, "PLATFORM"), (-3, "USER"), (9, "USER")],
)
def test_the_kind_of_a_keyring_follows_from_its_id(keyring_id: int, kind: str) -> None:
    assert KeyringKind.of(keyring_id).name == kind


@pytest.mark.parametrize(
    ("keyring_id", "certificate", "errno"),
    [
        (KeyringId.SESSION, b"", EINVAL),
        (KeyringId.SESSION, b"\x30\x82junk", EBADMSG),
        (3, b"any", EINVAL),
    ],
)
def test_what_cannot_be_added_to_a_keyring(keyring_id: int, certificate: bytes, errno: int) -> None:
    with pytest.raises(KernelError) as refused:
        Keyrings(KFUNC_SERIES).add_key(keyring_id, certificate)
    assert refused.value.errno == errno


def test_a_key_is_no_keyring_and_an_unknown_serial_cannot_be_revoked() -> None:
    keyrings = Keyrings(KFUNC_SERIES)
    serial = keyrings.add_key(KeyringId.SESSION, key_pair().certificate_der)
    with pytest.raises(KernelError) as refused:
        keyrings.add_key(serial, key_pair().certificate_der)
    assert refused.value.errno == EINVAL
    with pytest.raises(KernelError) as refused:
        keyrings.revoke(12345)
    assert refused.value.errno == ENOKEY


def test_a_new_fd_is_the_lowest_free_one() -> None:
    fds = FdTable()
    assert [fds.install(OpenFile(name)) for name in "abc"] == [3, 4, 5]
    fds.close(3)
    fds.close(0)
    assert [fds.install(OpenFile(name)) for name in "de"] == [0, 3]


def test_installing_at_a_fd_that_is_open_closes_it_first() -> None:
    fds, first = FdTable(), OpenFile("first")
    fd = fds.install(first)
    fds.install(OpenFile("second"), fd)
    assert not first.alive
    assert fds.listing()[fd] == "file second"


def test_an_object_lives_until_its_last_fd_is_closed() -> None:
    fds, item = FdTable(), OpenFile("twice")
    one, two = fds.install(item), fds.install(item)
    fds.close(one)
    lives_on = item.alive
    fds.close(two)
    assert (lives_on, item.alive) == (True, False)
    with pytest.raises(KernelError) as refused:
        fds.close(two)
    assert refused.value.errno == EBADF
