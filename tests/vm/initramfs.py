"""The guest: busybox, this machine's Python with its standard library, and bpfseal.

Nothing else is needed to load a bundle; that is part of what the tests show. Modules are compiled
here, since a guest under emulation is slow.
"""

from __future__ import annotations

import marshal
import re
import subprocess
import sys
import sysconfig
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import bpfseal

from .cpio import Archive

BUSYBOX = Path("/bin/busybox")

_SKIPPED = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages",
    "dist-packages", "__pycache__", "pydoc_data", "distutils", "msilib", "lib-dynload", "xmlrpc",
    "wsgiref", "dbm", "curses", "sqlite3", "venv",
}  # fmt: skip
_SKIPPED_MODULES = (
    "_test",
    "_tkinter",
    "_sqlite",
    "_curses",
    "readline",
    "_codecs_",
    "_dbm",
    "_gdbm",
)
_UNCHECKED_HASH = b"\x01\0\0\0" + bytes(8)

_TESTS = Path(__file__).parents[1]
_OURS = ("vm/__init__.py", "vm/exercises.py", "vm/inside", "support/kernel_objects.py")
"""What of the tests goes into a guest, beside bpfseal."""

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t tmpfs tmpfs /tmp
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox mount -t tracefs tracefs /sys/kernel/tracing
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox ip link set lo up
export PATH=/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/packages
for port in /sys/class/virtio-ports/vport*; do out=/dev/${port##*/}; done
python3 -m vm.inside.agent /jobs >$out 2>/tmp/errors
echo "exit $?" >$out
/bin/busybox cat /tmp/errors
/bin/busybox poweroff -f
"""


def build_base() -> bytes:
    """Return the archive that all guests share."""
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "bin", "etc"):
        archive.add_directory(name)
    archive.add_device("dev/console", 5, 1)
    archive.add_device("dev/null", 1, 3)
    archive.add_file(BUSYBOX, "bin/busybox")
    archive.add("init", INIT.encode(), 0o755)
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined] # in a venv, what it was made from
    archive.add_link("bin/python3", str(interpreter))
    modules = _extension_modules()
    for path in (interpreter, *modules):
        archive.add_file(path)
    for path in _libraries((interpreter, *modules)):
        archive.add_file(path)
    _add_package(archive, Path(sysconfig.get_path("stdlib")), None)
    _add_package(archive, Path(bpfseal.__file__).parent, "packages/bpfseal")
    for name in _OURS:
        path = _TESTS / name
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            _add_module(archive, module, f"packages/{module.relative_to(_TESTS)}")
    return archive.encode()


def _extension_modules() -> list[Path]:
    folder = Path(sysconfig.get_config_var("DESTSHARED"))
    return [p for p in sorted(folder.glob("*.so")) if not p.name.startswith(_SKIPPED_MODULES)]


def _libraries(files: tuple[Path, ...]) -> list[Path]:
    """Return the shared libraries that these files need, and the loader."""
    found = set()
    for path in files:
        done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> )?(/\S+) \(0x", done.stdout))
    return [Path(name) for name in sorted(found)]


def _add_package(archive: Archive, folder: Path, name: str | None) -> None:
    """Add the compiled modules of a folder, in place or under another name."""
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        parts = set(relative.parts[:-1])
        if parts & _SKIPPED or any(part.startswith("config-") for part in parts):
            continue
        _add_module(archive, path, f"{name}/{relative}" if name else str(path))


def _add_module(archive: Archive, path: Path, target: str) -> None:
    """Add a compiled module."""
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return  # the standard library holds files that are meant not to compile
    archive.add(f"{target}c", MAGIC_NUMBER + _UNCHECKED_HASH + marshal.dumps(code))
