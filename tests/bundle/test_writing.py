"""What is written is whole or not there, and nothing but what is ours is replaced."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpfseal.bundle import store, writing
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.writing import locked, made_folders, write_files
from bpfseal.errors import BpfsealError, CapabilityError, UsageError
from bpfseal.loader.model import Loader
from bpfseal.signals import ENDINGS
from support.interrupting import FINISHED, RAISED, interrupted_everywhere

from .support import BUNDLE, LOADER, listing

OTHER = Bundle("other", (SignedLoader(LOADER),))
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What is replaced keeps what it had


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_a_replaced_file_keeps_its_mode_whatever_the_umask_is(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "a.bpfseal"
    store.write_bundle(BUNDLE, target)
    target.chmod(mode)
    store.write_bundle(OTHER, target)
    assert store.read_bundle(target) == OTHER
    assert mode_of(target) == mode


def test_a_replaced_directory_keeps_its_modes(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    store.write_bundle(BUNDLE, f"{target}/")
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    store.write_bundle(OTHER, target)
    assert store.read_bundle(target) == OTHER
    assert {mode_of(path) for path in (target, *target.rglob("*"))} == {0o700, 0o600}


@ROOT
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    target, folder = tmp_path / "a.bpfseal", tmp_path / "bundle"
    store.write_bundle(BUNDLE, target)
    store.write_bundle(BUNDLE, f"{folder}/")
    for path in (target, folder, *folder.rglob("*")):
        os.chown(path, 1234, 2345)
    store.write_bundle(OTHER, target)
    store.write_bundle(OTHER, folder)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (target, *folder.rglob("*"))}
    assert owners == {(1234, 2345)}


def test_a_replaced_file_keeps_its_access_control_list(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    # include/uapi/linux/posix_acl_xattr.h: version 2; owner, user 1234, group, mask, other
    nobody = 0xFFFFFFFF
    entries = [(1, 6, nobody), (2, 4, 1234), (4, 0, nobody), (16, 4, nobody), (32, 0, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(target, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("this file system has no access control lists")
    write_files({target: b"new"})
    assert os.getxattr(target, "system.posix_acl_access") == acl
    assert mode_of(target) == 0o640


def test_a_secret_file_gets_its_mode_whatever_it_replaces(tmp_path: Path) -> None:
    target = tmp_path / "key.pem"
    target.write_bytes(b"old")
    target.chmod(0o644)
    write_files({target: b"new"}, modes={target: 0o600})
    assert mode_of(target) == 0o600


def test_a_link_to_a_directory_is_written_through(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, f"{tmp_path}/real/")
    (tmp_path / "link").symlink_to("real")
    store.write_bundle(OTHER, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert store.read_bundle(tmp_path / "real") == OTHER


def test_a_link_that_leads_nowhere_makes_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_files({tmp_path / "link": b"new"})
    assert listing(tmp_path) == ["link", "real"]
    assert (tmp_path / "real").read_bytes() == b"new"


@ROOT
def test_a_bundle_directory_that_is_a_mount_point_leaves_nothing_behind(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, f"{tmp_path}/real/")
    (tmp_path / "mount").mkdir()
    mount = ["mount", "--bind", str(tmp_path / "real"), str(tmp_path / "mount")]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(CapabilityError, match="busy"):
            store.write_bundle(OTHER, tmp_path / "mount")
        assert store.read_bundle(tmp_path / "mount") == BUNDLE
    finally:
        subprocess.run(["umount", str(tmp_path / "mount")], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"real", "mount"}


# What is no regular file


def written_to(code: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    text = f"from bpfseal.bundle.writing import write_files\nfrom pathlib import Path\n{code}"
    return subprocess.run([sys.executable, "-c", text], check=True, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_file_is_written_on_where_it_is_open(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    with log.open("ab") as out:
        written_to(f"write_files({{Path('{name}'): b'new'}})", stdout=out)
    assert log.read_bytes() == b"before\nnew"
    assert listing(tmp_path) == ["log"]


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_bytes()))
    reader.start()
    write_files({pipe: b"new"})
    reader.join(20)
    assert seen == [b"new"]
    assert pipe.is_fifo()


@ROOT
def test_a_disk_is_not_written_to(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 255))
    with pytest.raises(CapabilityError, match="is a disk"):
        write_files({disk: b"new"})


# What is not ours


def image(folder: Path) -> None:
    """Make an image layout of another tool, whose files have the names of a bundle's."""
    store.write_bundle(BUNDLE, f"{folder}/")
    index = json.loads((folder / "index.json").read_bytes())
    del index["artifactType"]
    (folder / "index.json").write_text(json.dumps(index))


def with_entry(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        store.write_bundle(BUNDLE, f"{folder}/")
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("thesis")

    return make


def with_link(folder: Path) -> None:
    store.write_bundle(BUNDLE, f"{folder}/")
    (folder / "blobs").rename(folder.with_name("elsewhere"))
    (folder / "blobs").symlink_to("../elsewhere")


def with_linked_file(folder: Path) -> None:
    store.write_bundle(BUNDLE, f"{folder}/")
    (folder / "index.json").rename(folder.with_name("index"))
    (folder / "index.json").symlink_to("../index")


def with_folder(folder: Path) -> None:
    store.write_bundle(BUNDLE, f"{folder}/")
    (folder / "blobs" / "sha256" / "empty").mkdir()


def marker_only(folder: Path) -> None:
    folder.mkdir()
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    "make",
    [
        image,
        marker_only,
        with_link,
        with_linked_file,
        with_folder,
        with_entry("thesis.tex"),
        with_entry(".hidden"),
        with_entry("blobs/notes"),
        with_entry(f"blobs/sha256/{64 * 'a'}"),
        with_entry("mine/thesis.tex"),
    ],
)
def test_a_directory_with_anything_that_is_not_a_bundles_stays(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "mine")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="is not replaced"):
        store.write_bundle(OTHER, tmp_path / "mine")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("exchanges", [True, False])
def test_what_was_put_into_the_old_bundle_at_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(writing, "exchange", lambda *_: False)
    folder = tmp_path / "bundle"
    store.write_bundle(BUNDLE, f"{folder}/")

    def owned(path: Path) -> frozenset[str]:
        names = frozenset(store.read_layout(path))
        (path / "thesis.tex").write_text("thesis")
        return names

    before = snapshot(folder) | {"thesis.tex": b"thesis"}
    with pytest.raises(UsageError, match="something else was put into it"):
        writing.write_directory(encode(OTHER), folder, owned=owned)
    assert snapshot(folder) == before
    assert listing(tmp_path) == ["bundle"]


@pytest.mark.parametrize(
    "data", [b"-----BEGIN PRIVATE KEY-----\n", b"-----BEGIN CERTIFICATE-----\n", b"\x7fELF\2\1\1"]
)
def test_a_key_a_certificate_and_an_object_are_not_replaced(tmp_path: Path, data: bytes) -> None:
    target = tmp_path / "a"
    target.write_bytes(data)
    with pytest.raises(UsageError, match="is not replaced"):
        store.write_bundle(BUNDLE, target)
    assert target.read_bytes() == data
    assert listing(tmp_path) == ["a"]


# No moment without, and never a half


@pytest.mark.parametrize("form", ["a.bpfseal", "bundle/"])
def test_whoever_opens_the_target_finds_a_whole_bundle(tmp_path: Path, form: str) -> None:
    target = tmp_path / form
    store.write_bundle(BUNDLE, f"{tmp_path}/{form}")
    done = threading.Event()
    seen: list[object] = []

    def watch() -> None:
        while not done.is_set():
            try:
                if form.endswith("/"):
                    # Through one open directory: which one it is, is decided once.
                    opened = os.open(target, os.O_RDONLY)
                    try:
                        fd = os.open("index.json", os.O_RDONLY, dir_fd=opened)
                    except FileNotFoundError:
                        # The old one, taken apart after it was replaced.
                        assert target.stat().st_ino != os.fstat(opened).st_ino
                    else:
                        json.loads(os.read(fd, 1 << 20))
                        os.close(fd)
                    os.close(opened)
                else:
                    assert store.read_bundle(target) in (BUNDLE, OTHER)
            except Exception as error:  # noqa: BLE001
                seen.append(error)
                return
        seen.append(None)

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for _ in range(50 if form == "a.bpfseal" else 10):
        for bundle in (OTHER, BUNDLE):
            store.write_bundle(bundle, f"{tmp_path}/{form}")
    done.set()
    for watcher in watchers:
        watcher.join(30)
    assert seen == [None, None]


def test_without_exchange_a_directory_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "exchange", lambda *_: False)
    store.write_bundle(BUNDLE, f"{tmp_path}/bundle/")
    store.write_bundle(OTHER, tmp_path / "bundle")
    assert store.read_bundle(tmp_path / "bundle") == OTHER
    assert listing(tmp_path) == ["bundle"]


def test_files_and_their_directory_are_on_the_disk_before_and_after_they_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        steps.append("folder" if path == str(tmp_path) else "file")
        sync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append("replace")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_files({tmp_path / "a": b"1"})
    assert steps == ["file", "replace", "folder"]


# Failures


@ROOT
def test_if_the_last_of_several_cannot_take_its_place_the_others_give_theirs_back(
    tmp_path: Path,
) -> None:
    for name in ("a", "c"):
        (tmp_path / name).write_bytes(b"old")
    done = subprocess.run(["chattr", "+i", tmp_path / "c"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no immutable files here")
    try:
        with pytest.raises(CapabilityError, match="not permitted"):
            write_files({tmp_path / name: b"new" for name in "abc"})
    finally:
        subprocess.run(["chattr", "-i", tmp_path / "c"], check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"old",
        "c": b"old",
    }


def test_what_must_be_new_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(CapabilityError, match="exists"):
        write_files({tmp_path / name: b"new" for name in "ab"}, exclusive=True)
    assert listing(tmp_path) == ["b"]
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is full after 128 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk (needs root, to mount a tmpfs)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


BIG = Bundle(
    "big", (SignedLoader(Loader("loadtime", "big", bytes(8), bytes(200_000), b"", (), ())),)
)


@pytest.mark.parametrize("form", ["a.bpfseal", "bundle/"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_full_disk_leaves_what_was_there(small_disk: Path, form: str, *, is_there: bool) -> None:
    if is_there:
        store.write_bundle(BUNDLE, f"{small_disk}/{form}")
    before = snapshot(small_disk)
    with pytest.raises(CapabilityError, match="No space left"):
        store.write_bundle(BIG, f"{small_disk}/{form}")
    assert snapshot(small_disk) == before


# Signals


@pytest.mark.parametrize("raises", [True, False], ids=["handler", "default action"])
@pytest.mark.parametrize("number", ENDINGS, ids=lambda number: number.name)
def test_a_signal_at_any_step_leaves_the_old_files_or_the_new_ones(
    tmp_path: Path, number: signal.Signals, *, raises: bool
) -> None:
    folder = tmp_path / "place"
    files = {folder / name: b"new" for name in ("a", "b", "made")}

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in ("a", "b"):
            (folder / name).write_bytes(b"old")

    old, new = {"a": b"old", "b": b"old"}, {path.name: b"new" for path in files}
    ends = set()
    for status in interrupted_everywhere(
        prepare, lambda: write_files(files), number, raises=raises, stride=7
    ):
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert found in (old, new)
        assert status == (RAISED if raises else -number)
        ends.add(found == new)
    assert ends == {True, False}


@pytest.mark.parametrize("raises", [True, False], ids=["handler", "default action"])
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_a_signal_at_any_step_leaves_the_old_directory_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, raises: bool, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(writing, "exchange", lambda *_: False)
    folder = tmp_path / "place"
    files = encode(Bundle("none", ()))

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        store.write_bundle(Bundle("old", ()), f"{folder}/bundle/")

    def work() -> None:
        writing.write_directory(
            files, folder / "bundle", owned=lambda path: frozenset(store.read_layout(path))
        )

    ends = set()
    for status in interrupted_everywhere(prepare, work, signal.SIGTERM, raises=raises, stride=7):
        assert listing(folder) == ["bundle"]
        ends.add(store.read_bundle(folder / "bundle").name)
        assert status == (RAISED if raises else -signal.SIGTERM)
    assert ends == {"old", "none"}


def test_a_handler_that_goes_on_lets_the_work_go_on(tmp_path: Path) -> None:
    called: list[int] = []

    def work() -> None:
        write_files({tmp_path / "a": b"new"})
        assert called == [signal.SIGTERM]

    old = signal.signal(signal.SIGTERM, lambda number, _: called.append(number))
    try:
        ends = list(interrupted_everywhere(lambda: None, work, signal.SIGTERM, raises=False))
    finally:
        signal.signal(signal.SIGTERM, old)
    assert set(ends) == {FINISHED}
    assert (tmp_path / "a").read_bytes() == b"new"


# Folders and locks


def test_folders_that_stay_empty_are_removed_again(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError), made_folders(tmp_path / "a" / "b"):
        write_files({tmp_path / "a" / "b" / "c" / "d": b"1"})
    assert listing(tmp_path) == []
    with made_folders(tmp_path / "a" / "b"):
        write_files({tmp_path / "a" / "b" / "c": b"1"})
    assert listing(tmp_path / "a") == ["b"]


def test_a_folder_that_cannot_be_made_is_a_capability_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CapabilityError, match="cannot be made"), made_folders(tmp_path / "file/a"):
        pass


def test_a_lock_that_is_never_given_back_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LOCK_WAIT", 0.1)
    with (
        locked(tmp_path),
        locked(tmp_path, shared=True),  # goes on
        pytest.raises(BpfsealError, match="keeps it locked"),
        locked(tmp_path),
    ):
        pass
    assert listing(tmp_path) == []
