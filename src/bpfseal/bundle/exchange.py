"""Two paths change places in one step: renameat2(2) with RENAME_EXCHANGE.

Source: fs/namei.c ``do_renameat2``; include/uapi/linux/fs.h.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2

_UNKNOWN: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""How kernels and file systems (NFS, some of FUSE) say that they cannot."""


def exchange(first: Path, second: Path) -> bool:
    """Let two paths of one file system change places, and return whether that is possible here.

    Raises:
        OSError: it is possible, but did not work.
    """
    return _rename(first, second, _RENAME_EXCHANGE)


def rename_to_new(source: Path, target: Path) -> None:
    """Rename a file to a name that is not taken.

    Raises:
        FileExistsError: it is taken.
        OSError: it did not work.
    """
    if not _rename(source, target, _RENAME_NOREPLACE):
        os.link(source, target)
        source.unlink()


def _rename(source: Path, target: Path, flags: int) -> bool:
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc before 2.28, musl before 1.2.6
        return False
    ctypes.set_errno(0)
    names = (ctypes.c_char_p(os.fsencode(path)) for path in (source, target))
    first, second = names
    result = renameat2(_AT_FDCWD, first, _AT_FDCWD, second, ctypes.c_uint(flags))
    number = ctypes.get_errno()
    if result == 0:
        return True
    if number in _UNKNOWN:
        return False
    raise OSError(number, os.strerror(number), str(target))
