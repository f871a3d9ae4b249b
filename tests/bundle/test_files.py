from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from bpfseal.bundle.writing import write_files
from bpfseal.errors import CapabilityError, InputError
from bpfseal.input_file import read_file

from .support import listing


def test_if_one_of_several_files_cannot_be_written_none_appears(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError):
        write_files({tmp_path / "a": b"1", tmp_path / "no" / "b": b"2"})
    assert listing(tmp_path) == []


def test_a_directory_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CapabilityError, match="is a directory"):
        write_files({tmp_path / "folder": b"1"})
    assert listing(tmp_path) == ["folder"]


def test_a_link_is_written_through_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write_files({tmp_path / "link": b"new"})
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_device_is_written_to_not_replaced() -> None:
    write_files({Path(os.devnull): b"gone"})
    assert Path(os.devnull).is_char_device()


def test_a_secret_file_is_never_readable_by_others(tmp_path: Path) -> None:
    write_files({tmp_path / "key": b"1"}, modes={tmp_path / "key": 0o600})
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(InputError, match="larger than 10 bytes"):
        read_file(tmp_path / "a", limit=10)


@pytest.mark.parametrize("path", ["missing", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_an_input_error(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / path, limit=10)


def test_links_and_pipes_are_refused_where_they_are_not_expected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(os.devnull)
    for name in ("pipe", "link"):
        with pytest.raises(InputError):
            read_file(tmp_path / name, limit=10, follow_links=False)
