"""Reading files: of a known kind, with a limit, and never without an end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from bpfseal import input_file
from bpfseal.errors import InputError
from bpfseal.input_file import read_file, read_open
from support.work import peak


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def writing(path: Path, *chunks: bytes) -> Iterator[None]:
    """Write to a pipe while it is being read."""

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    yield
    writer.join()


def test_a_pipe_that_somebody_writes_to_is_read_to_its_end(fifo: Path) -> None:
    with writing(fifo, b"a" * 100_000, b"b" * 100_000):
        assert read_file(fifo, limit=1 << 20) == b"a" * 100_000 + b"b" * 100_000


def test_a_pipe_of_a_shell_is_read() -> None:
    script = "import sys; from pathlib import Path; from bpfseal.input_file import read_file;"
    script += "print(read_file(Path(sys.argv[1]), limit=100))"
    command = f"{sys.executable} -c '{script}' <(sleep 0.2; printf late)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "b'late'\n"


def test_a_pipe_that_nobody_writes_to_is_refused(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "OPEN_SECONDS", 0.05)
    with pytest.raises(InputError, match="a pipe from which nothing came"):
        read_file(fifo, limit=100)


def test_a_pipe_whose_writer_stays_silent_is_refused(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "SILENT_SECONDS", 0.05)
    silent = os.open(fifo, os.O_RDWR)
    try:
        with pytest.raises(InputError, match="a pipe from which nothing came"):
            read_file(fifo, limit=100)
    finally:
        os.close(silent)


def test_a_pipe_that_is_longer_than_the_limit_is_refused(fifo: Path) -> None:
    def write() -> None:
        try:
            with fifo.open("wb", buffering=0) as pipe:
                while True:
                    pipe.write(bytes(1 << 16))
        except BrokenPipeError:
            return

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read_file(fifo, limit=100)
    writer.join()


@pytest.mark.parametrize("only_regular", [False, True])
def test_a_device_without_an_end_is_refused(only_regular: bool) -> None:
    with pytest.raises(InputError, match="not a regular file"):
        read_file(Path("/dev/zero"), limit=100, only_regular=only_regular)


def test_the_null_device_is_an_empty_file() -> None:
    assert read_file(Path(os.devnull), limit=100) == b""


def test_only_a_regular_file_is_read_where_nobody_named_it(fifo: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_bytes(b"x")
    assert read_file(tmp_path / "link", limit=100, only_regular=True) == b"x"
    for path in (fifo, Path(os.devnull), tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            read_file(path, limit=100, only_regular=True)


def test_a_file_of_procfs_that_says_it_is_empty_is_read() -> None:
    assert read_file(Path("/proc/self/status"), limit=1 << 20).startswith(b"Name:")


def test_room_is_made_for_what_a_file_has_and_not_for_its_limit(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(bytes(1000))
    assert peak(lambda: read_file(tmp_path / "small", limit=1 << 30)) < 1 << 20
    assert peak(lambda: read_open(BytesIO(bytes(1000)), limit=1 << 30, where="stdin")) < 1 << 20


@pytest.mark.parametrize("size", [0, 100, 101, 200_000])
def test_an_open_file_is_read_up_to_the_limit(size: int) -> None:
    if size <= 100:
        assert read_open(BytesIO(bytes(size)), limit=100, where="stdin") == bytes(size)
    else:
        with pytest.raises(InputError, match="stdin: larger than 100 bytes"):
            read_open(BytesIO(bytes(size)), limit=100, where="stdin")
