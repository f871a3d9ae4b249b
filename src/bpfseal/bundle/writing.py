"""Files as they are written everywhere in bpfseal: whole, or not at all.

What is new is written under a temporary name in the same directory, synchronised with the disk, and
takes its place in one step, so that whoever opens the target finds the old or the new, and never
neither or half. A failure, and a signal that ends the process, leave nothing and change nothing
(SIGKILL may leave a file ``.NAME.*.tmp``). What is replaced keeps its mode, owner, access control
list and SELinux label.

A link is written through. What is no regular file is written to directly: a device, a pipe, and an
open file of this process by its name (``/dev/stdout``).

Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_files({Path(folder) / "a.bin": b"one", Path(folder) / "b.bin": b"two"})
    ...     (Path(folder) / "b.bin").read_bytes()
    b'two'
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from bpfseal.bundle.exchange import exchange, rename_to_new
from bpfseal.bundle.targets import check_distinct, check_no_input, own_descriptor
from bpfseal.errors import CapabilityError, UsageError
from bpfseal.input_file import reason
from bpfseal.signals import deferred_endings

_KEPT_ATTRIBUTES: Final = ("system.posix_acl_access", "security.selinux")
"""The extended attributes that say who may do what."""

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_LONGEST_NAME: Final = 200
"""Bytes of a name that its temporary name repeats; file systems allow 255 in all."""

_SPARED: Final = {b"-----BEGIN ": "a key or certificate", b"\x7fELF": "an object file"}
"""How files begin that no output replaces: a slip in the command line names them."""

_LOCK_WAIT: Final = 10.0
_LOCK_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class _Staged:
    """A file under its temporary name, complete, and what it is to replace."""

    temporary: Path
    target: Path
    replaces: bool


def write_files(
    files: Mapping[Path, bytes],
    *,
    modes: Mapping[Path, int] | None = None,
    exclusive: bool = False,
    spare: bool = True,
    over: os.stat_result | None = None,
) -> None:
    """Write files; all of them, or none.

    Args:
        files: contents by path, in the order in which they appear.
        modes: permissions of some of them, whatever they replace. Others keep those of the file
            that they replace, or have 0666, each without the umask.
        exclusive: none of them may be there yet.
        spare: refuse to replace keys, certificates and object files.
        over: an input that one of them may replace; see `bpfseal.bundle.targets.check_no_input`.

    Raises:
        UsageError: a file is there that must not be replaced, or is named twice.
        CapabilityError: a file cannot be written.
    """
    for path in files:
        check_no_input(path, over)
    check_distinct(files)
    regular: list[Path] = []
    for path, data in files.items():
        with _writing(path):
            if not _written_directly(path, data):
                regular.append(path)
    with deferred_endings() as signals, contextlib.ExitStack() as cleanup:
        staged = []
        for path in regular:
            mode = (modes or {}).get(path)
            with _writing(path):
                staged.append(_stage(path, files[path], mode, cleanup, spare=spare))
            signals.deliver()
        _publish(staged, exclusive=exclusive)


def write_directory(
    files: Mapping[str, bytes],
    path: Path,
    *,
    owned: Callable[[Path], Collection[str]],
    over: os.stat_result | None = None,
) -> None:
    """Write a directory with these files, in place of one that was there.

    The old and the new directory change places in one step. Where the file system cannot do that,
    there is a moment without either.

    Args:
        files: contents by relative path.
        path: the directory. If it exists it is empty, or `owned` takes it.
        owned: returns the relative paths of all files of a directory that may be replaced as a
            whole.
        over: an input that it may replace.

    Raises:
        UsageError: the directory holds something else; from `owned`; or it is an input.
        CapabilityError: it cannot be written; the old one is still there then.
    """
    check_no_input(path, over)
    with deferred_endings() as signals, _writing(path):
        old = _status(path)
        path = Path(os.path.realpath(path))
        if old and not stat.S_ISDIR(old.st_mode):
            raise NotADirectoryError(None, "is not a directory")
        names = owned(path) if old and any(path.iterdir()) else ()
        new = _temporary_name(path)
        try:
            _stage_directory(files, new, path if old else None)
            signals.deliver()
            if not names:
                new.rename(path)  # in place of an empty one as well
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if names:
            _swap_directories(new, path, names)
        _sync_directory(path.parent)


@contextlib.contextmanager
def made_folders(*folders: Path) -> Iterator[None]:
    """Make directories, with those above them; what is still empty at the end is removed again.

    Raises:
        CapabilityError: one cannot be made.
    """
    made: list[Path] = []
    try:
        for folder in folders:
            for path in reversed([folder, *folder.parents]):
                _make_folder(path, made)
        yield
    finally:
        with deferred_endings():
            for path in reversed(made):
                with contextlib.suppress(OSError):
                    path.rmdir()


def is_folder(path: Path) -> bool:
    """Whether a path is a directory; one that cannot be looked at is none, until it is written."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _make_folder(path: Path, made: list[Path]) -> None:
    if is_folder(path):
        return
    made.append(path)  # before: no signal comes in between
    try:
        path.mkdir()
    except (OSError, ValueError) as error:
        made.pop()
        if not is_folder(path):  # else another process was faster
            message = f"cannot be made: {reason(error)}"
            raise CapabilityError(message, where=str(path)) from None


@contextlib.contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Be the only one who writes files of a directory that belong together, or read them meanwhile.

    The lock is one of flock(2) on the directory, so that nothing is left behind. It is advisory. A
    file system without such locks, or a directory that may not be read, goes without, and so do
    readers after a while: whoever can open a directory can lock it.

    Raises:
        CapabilityError: another process keeps the lock, and it is not for reading.
    """
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if descriptor >= 0:
            _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, folder)
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int, kind: int, folder: Path) -> None:
    end = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                if kind == fcntl.LOCK_SH:
                    return
                raise CapabilityError(
                    "another process keeps it locked", where=str(folder)
                ) from None
            time.sleep(_LOCK_PAUSE)
        except OSError:  # no locks here
            return
        else:
            return


def _written_directly(path: Path, data: bytes) -> bool:
    """Write to a target that renaming would replace by a file; False if it is none such."""
    descriptor = own_descriptor(path)
    if descriptor is not None:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        return True
    status = _status(path)
    if status is None or stat.S_ISREG(status.st_mode):
        return False
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(None, "is a directory")
    if stat.S_ISBLK(status.st_mode):
        raise OSError(None, "is a disk")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_NOCTTY), "wb") as file:
        file.write(data)
    return True


def _status(path: Path) -> os.stat_result | None:
    """Return what is at a path, through links as the kernel lets this process follow them."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _stage(
    path: Path, data: bytes, mode: int | None, cleanup: contextlib.ExitStack, *, spare: bool
) -> _Staged:
    """Write a file under its temporary name, with the permissions of the file that it replaces."""
    old = _status(path)
    target = Path(os.path.realpath(path))
    if old and spare:
        _check_spared(target)
    temporary = _temporary_name(target)
    cleanup.callback(temporary.unlink, missing_ok=True)
    created = mode if mode is not None else 0o600 if old else 0o666
    with os.fdopen(os.open(temporary, _CREATE, created), "wb") as file:
        file.write(data)
        file.flush()
        if old and mode is None:  # a secret belongs to who makes it, whose ever the old one was
            _keep(file.fileno(), old, target)
        os.fsync(file.fileno())
    return _Staged(temporary, target, replaces=old is not None)


def _check_spared(target: Path) -> None:
    with contextlib.suppress(PermissionError), target.open("rb") as file:
        head = file.read(max(map(len, _SPARED)))
        for magic, kind in _SPARED.items():
            if head.startswith(magic):
                raise UsageError(
                    f"is {kind}, which is not replaced", where=str(target), hint="name another file"
                )


def _publish(staged: Sequence[_Staged], *, exclusive: bool) -> None:
    """Let files take their places; if one cannot, those before it give them back."""
    with contextlib.ExitStack() as undo:
        for each in staged:
            with _writing(each.target):
                if exclusive:
                    rename_to_new(each.temporary, each.target)
                    undo.callback(each.target.unlink)
                elif len(staged) > 1 and each.replaces and exchange(each.temporary, each.target):
                    undo.callback(exchange, each.temporary, each.target)
                else:
                    each.temporary.replace(each.target)
                    if not each.replaces:
                        undo.callback(each.target.unlink)
        undo.pop_all()
    for folder in {each.target.parent for each in staged}:
        with _writing(folder):
            _sync_directory(folder)


def _stage_directory(files: Mapping[str, bytes], new: Path, old: Path | None) -> None:
    """Write a directory under its temporary name, with the permissions of one that it replaces."""
    inside = sorted(old.iterdir()) if old else ()
    like_file = next((path for path in inside if not path.is_dir()), None)
    like_folder = next((path for path in inside if path.is_dir()), None)
    new.mkdir(0o700 if old else 0o777)
    folders = _folders(files)
    for name in folders:
        (new / name).mkdir()
    for name, data in files.items():
        with os.fdopen(os.open(new / name, _CREATE, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            if like_file:
                _keep(file.fileno(), like_file.stat(), like_file)
            os.fsync(file.fileno())
    for name in reversed(folders):
        if like_folder:
            _keep(new / name, like_folder.stat(), like_folder)
        _sync_directory(new / name)
    if old:
        _keep(new, old.stat(), old)
    _sync_directory(new)


def _folders(names: Collection[str]) -> list[str]:
    """Return the directories of relative paths, each before those in it."""
    return sorted({str(folder) for name in names for folder in PurePath(name).parents} - {"."})


def _swap_directories(new: Path, path: Path, names: Collection[str]) -> None:
    """Let the new directory take the place of the old one, of which nothing but `names` goes."""
    try:
        _change_places(new, path)
    except OSError:  # a mount point, for example, stays where it is
        shutil.rmtree(new, ignore_errors=True)
        raise
    folders = _folders(names)
    if {str(entry.relative_to(new)) for entry in new.rglob("*")} != {*names, *folders}:
        _change_places(new, path)
        shutil.rmtree(new, ignore_errors=True)
        raise UsageError("something else was put into it just now", where=str(path))
    for name in names:
        (new / name).unlink()
    for name in reversed(folders):
        (new / name).rmdir()
    new.rmdir()


def _change_places(first: Path, second: Path) -> None:
    if exchange(first, second):
        return
    aside = _temporary_name(second)
    second.rename(aside)
    try:
        first.rename(second)
    except OSError:
        aside.rename(second)
        raise
    aside.rename(first)


def _keep(file: int | Path, old: os.stat_result, source: Path) -> None:
    """Give a file owner, mode and access rights of the one that it replaces.

    Whoever may not give it to the old owner or group does not give rights to others with it.
    """
    mode = stat.S_IMODE(old.st_mode)
    try:
        os.chown(file, old.st_uid, old.st_gid)
    except PermissionError:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
        try:
            os.chown(file, -1, old.st_gid)
        except PermissionError:
            mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    for name in _KEPT_ATTRIBUTES:
        with contextlib.suppress(OSError):
            os.setxattr(file, name, os.getxattr(source, name))
    os.chmod(file, mode)  # noqa: PTH101 - may be a descriptor


def _sync_directory(folder: Path) -> None:
    """Have the names in a directory on the disk, where the file system does that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # names may be made in it, but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def _temporary_name(path: Path) -> Path:
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME])
    return path.with_name(f".{name}.{os.urandom(4).hex()}.tmp")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        message = f"cannot be written: {reason(error)}"
        raise CapabilityError(message, where=str(path)) from None
