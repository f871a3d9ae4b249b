"""Fetch packages from any suite of the Debian mirror that this machine already uses.

The suite gets lists and a cache of its own, so the machine's own package state stays untouched. apt
verifies what it downloads: the suite's release file against the archive's keyring, the list of
packages against the release file, and each package against the list. The SHA-256 of a verified file
is kept beside it, and compared before the file is used again.

Example:
    >>> fetch(["bpftool/trixie-backports"], ["trixie", "trixie-backports"], Path("build"))
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")


class FetchError(Exception):
    """Why packages cannot be fetched, in one line."""


def mirror() -> str:
    """Return the URI of the Debian mirror in this machine's sources.

    Raises:
        FetchError: this is no Debian machine.
    """
    files = [path for source in _SOURCES for path in (Path(source), *Path(source).glob("*"))]
    for path in files:
        if path.is_file() and path.suffix in (".list", ".sources"):
            found = re.search(r"\bhttps?://\S+/debian/?(?=\s)", path.read_text(errors="replace"))
            if found:
                return found.group()
    raise FetchError("no Debian mirror in this machine's apt sources")


class _Apt:
    """apt with lists and a cache of its own."""

    def __init__(self, suites: Sequence[str], directory: Path) -> None:
        self._directory = directory
        state = directory.resolve() / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        sources = state / "sources.list"
        uri = mirror()
        sources.write_text(
            "".join(f"deb [signed-by={_KEYRING}] {uri} {suite} main\n" for suite in suites)
        )
        options = {
            "Dir::Etc::SourceList": sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": state / "lists",
            "Dir::Cache": state / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self._flags = [t for name, value in options.items() for t in ("-o", f"{name}={value}")]
        self._is_fresh = False

    def download(self, package: str) -> Path:
        """Download a package, which apt verifies, and note its digest."""
        with tempfile.TemporaryDirectory(dir=self._directory) as incoming:
            self.ask("apt-get", "-qq", "download", package, directory=Path(incoming))
            (arrived,) = Path(incoming).glob("*.deb")
            path = arrived.rename(self._directory / arrived.name)
        keep_digest(path)
        return path

    def ask(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        """Run an apt program on fresh lists, in a directory, and return what it prints."""
        if not self._is_fresh:
            _run(["apt-get", *self._flags, "-qq", "update"], self._directory)
            self._is_fresh = True
        return _run([program, *self._flags, *arguments], directory or self._directory)


def names(suites: Sequence[str], directory: Path) -> list[str]:
    """Return the names of all packages in some suites.

    Raises:
        FetchError: apt cannot tell.
    """
    return _Apt(suites, directory).ask("apt-cache", "pkgnames").split()


def fetch(packages: Sequence[str], suites: Sequence[str], directory: Path) -> list[Path]:
    """Download packages and return their files, in the order of `packages`.

    Args:
        packages: names, each with ``/SUITE`` behind it where it matters.
        suites: the suites to look in.
        directory: where everything goes; packages that are there already, as they were verified,
            are not fetched again.

    Raises:
        FetchError: apt cannot get one of them.
    """
    apt = _Apt(suites, directory)
    files = []
    for package in packages:
        pattern = f"{package.partition('/')[0]}_*.deb"
        found = [path for path in sorted(directory.glob(pattern)) if is_intact(path)]
        if not found:
            found = [apt.download(package)]
        files.append(found[-1])
    return files


def keep_digest(path: Path) -> None:
    """Note the SHA-256 of a file that was just verified, or made from one that was."""
    _digest_file(path).write_text(_digest(path))


def is_intact(path: Path) -> bool:
    """Tell whether a file is there and has the digest that was noted."""
    noted = _digest_file(path)
    return path.exists() and noted.exists() and noted.read_text() == _digest(path)


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(package: Path, directory: Path) -> None:
    """Unpack a package's files into a directory."""
    _run(["dpkg-deb", "-x", str(package.resolve()), str(directory.resolve())], directory)


def _run(command: Sequence[str], directory: Path) -> str:
    try:
        done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        raise FetchError(f"{' '.join(command[:1])}: {lines[-1]}") from None
    return done.stdout
