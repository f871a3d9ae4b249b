"""Signals disturb the kernel at its work: what was disturbed is done again, and handlers still run.

Socket filters and maps only; nothing attaches.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

import bpfseal
from bpfseal import signals
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapType, ProgType
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.errors import KernelError
from bpfseal.kernel.linux import syscalls
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.load import load
from bpfseal.kernel.pinning import pin_loaded
from bpfseal.kernel.protocol import ProgLoad
from bpfseal.loader import generate
from bpfseal.signals import ATTEMPTS, blocked_signals
from support.interrupting import RAISED, interrupted_everywhere
from support.kernel_objects import kernel_objects, left_behind, load_and_close
from support.object_writer import ObjectWriter

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root")

ROUNDS = 30_000
"""Rounds of a loop that the verifier walks one by one, which takes it some milliseconds."""

LOOP = (
    mov64_imm(0, 0),
    Insn(op.ALU64 | op.ADD | op.K, 0, 0, 0, 1),
    Insn(op.JMP | op.JLT | op.K, 0, 0, -2, ROUNDS),
    exit_insn(),
)


@cache
def loader_of(*code: Insn) -> SignedLoader:
    writer = ObjectWriter()
    writer.add_program("socket", "filter", code)
    writer.add_map("table", type=MapType.HASH, key_size=4, value_size=8, max_entries=4)
    writer.add_variable("level", ".rodata", (7).to_bytes(4, "little"))
    return SignedLoader(generate(writer.read(), "unsigned"))


@contextmanager
def timer(period: float, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    old = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, period, period)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.parametrize("period", [0.1, 0.01, 0.002, 0.0005])
@pytest.mark.parametrize("code", [(mov64_imm(0, 0), exit_insn()), LOOP], ids=["short", "long"])
def test_loads_come_up_whatever_a_timer_does(code: tuple[Insn, ...], period: float) -> None:
    """A verifier with a pending signal gives up with EAGAIN (do_check): the loader's, or that of
    what the loader loads, whose error the loader returns.
    """
    kernel, signed, calls = LinuxKernel(), loader_of(*code), []
    before = kernel_objects()
    with timer(period, lambda *_: calls.append(1)):
        for _ in range(8):
            load_and_close(kernel, signed)
    assert left_behind(before) == []


def test_the_timers_of_these_tests_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another attempt these loads fail, or the tests above show nothing."""
    monkeypatch.setattr(signals, "ATTEMPTS", 1)
    monkeypatch.setattr(signals, "blocked_signals", nullcontext)
    kernel, signed = LinuxKernel(), loader_of(*LOOP)
    with timer(0.002, lambda *_: None), pytest.raises(KernelError, match="EAGAIN"):
        load_and_close(kernel, signed)


def test_a_handler_that_raises_ends_the_load() -> None:
    kernel, signed = LinuxKernel(), loader_of(*LOOP)

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), timer(0.002, handler):
        load_and_close(kernel, signed)


def test_attempts_are_counted_and_the_last_one_has_no_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    masks: list[set[int]] = []

    class Libc:
        def syscall(self, *_: object) -> int:
            masks.append({int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())})
            ctypes.set_errno(errno.EAGAIN)
            return -1

    monkeypatch.setattr(syscalls, "_libc", Libc())
    with pytest.raises(KernelError, match="Resource temporarily unavailable"):
        syscalls.bpf(0, bytearray(8))
    assert len(masks) == ATTEMPTS
    assert [signal.SIGINT in mask for mask in masks] == [*[False] * (ATTEMPTS - 1), True]
    assert signal.SIGSEGV not in masks[-1]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_signal_that_was_blocked_comes_afterwards() -> None:
    with pytest.raises(KeyboardInterrupt), blocked_signals():
        signal.raise_signal(signal.SIGINT)


def test_a_test_run_that_takes_long_is_not_given_up() -> None:
    """bpf_test_timer_continue answers EINTR if a signal is pending between two runs."""
    kernel = LinuxKernel()
    fd = kernel.prog_load(ProgLoad(ProgType.SOCKET_FILTER, "loop", encode_insns(LOOP), "GPL"))
    try:
        with timer(0.005, lambda *_: None):
            assert kernel.prog_test_run(fd, bytes(64), repeat=300).retval == ROUNDS
    finally:
        kernel.close(fd)


class LateError(Exception):
    """What the handler of a timer raises."""


def test_a_timer_whose_handler_raises_at_any_step_leaves_no_fd() -> None:
    """At each third line of `bpfseal.load`; none of its fds has an owner that the caller knows."""
    package, number = str(Path(bpfseal.__file__).parent), signal.SIGALRM
    kernel = LinuxKernel()
    bundle = Bundle("filter", (loader_of(mov64_imm(0, 0), exit_insn()),))

    def handler(*_: object) -> None:
        raise LateError

    def raised_at(step: int) -> bool | None:
        """Whether the load was ended by a signal at a step; None if there is no such step."""
        left = step

        def trace(frame: FrameType, event: str, _argument: object) -> object:
            nonlocal left
            if not frame.f_code.co_filename.startswith(package) or left < 0:
                return None
            if event == "line":
                left -= 1
                if left < 0:
                    signal.raise_signal(number)
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            skeleton = bpfseal.load(bundle, kernel, scheme="unsigned")
        except LateError:
            return True
        finally:
            sys.settrace(None)
        skeleton.close()
        return None if left >= 0 else False

    old = signal.signal(number, handler)
    outcomes = set()
    try:
        assert raised_at(1 << 30) is None  # everything is imported
        before = sorted(Path("/proc/self/fd").iterdir())
        for step in range(0, 1 << 30, 3):
            outcome = raised_at(step)
            assert sorted(Path("/proc/self/fd").iterdir()) == before, step
            outcomes.add(outcome)
            if outcome is None:
                break
    finally:
        signal.signal(number, old)
    assert outcomes >= {True, None}


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpf"
    folder.mkdir()
    mount = ["mount", "-t", "bpf", "bpf", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: pins (no bpffs can be mounted)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("raises", [True, False], ids=["handler", "default action"])
def test_a_signal_at_any_step_leaves_all_pins_or_none(bpffs: Path, *, raises: bool) -> None:
    kernel = LinuxKernel()
    loaded = load(kernel, loader_of(mov64_imm(0, 0), exit_insn()), unsigned=True)
    place = bpffs / "tool"

    def prepare() -> None:
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if place.exists():
            place.rmdir()

    everything = {"tool", "tool/maps", "tool/maps/table", "tool/maps/rodata"}
    everything |= {"tool/programs", "tool/programs/filter"}
    ends = set()
    for status in interrupted_everywhere(
        prepare, lambda: pin_loaded(kernel, loaded, place), signal.SIGTERM, raises=raises, stride=3
    ):
        found = {
            str(path.relative_to(bpffs))
            for path in bpffs.rglob("*")
            if place in (path, *path.parents)
        }
        assert found in (set(), everything)
        assert status == (RAISED if raises else -signal.SIGTERM)
        ends.add(bool(found))
    assert ends == {True, False}
    prepare()
    for fd in (*loaded.map_fds.values(), *loaded.prog_fds.values()):
        kernel.close(fd)
