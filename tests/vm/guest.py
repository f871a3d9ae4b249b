"""Boot a kernel under QEMU with the jobs of a test, and collect what the agent prints.

Emulation only (TCG): it works everywhere, without privileges. A boot takes about ten seconds.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cpio import Archive
from .kernels import Kernel

QEMU = "qemu-system-x86_64"
_MEMORY_MIB = 1024


@dataclass(frozen=True)
class Answers:
    """What a guest said.

    Attributes:
        head: the kernel's description and the scheme that its features speak for.
        jobs: the answer to each job, by name.
    """

    head: dict[str, Any]
    jobs: dict[str, dict[str, Any]]


def run(
    kernel: Kernel, base: bytes, files: Mapping[str, bytes], *, timeout: float = 900
) -> Answers:
    """Boot, run the agent on the files in ``/jobs``, and return its answers.

    Raises:
        RuntimeError: the guest did not come to its end; the message holds its console's tail.
    """
    overlay = Archive()
    for name, data in files.items():
        overlay.add(f"jobs/{name}", data)
    with tempfile.TemporaryDirectory() as work:
        initrd, out, console = (Path(work, name) for name in ("initrd", "out", "console"))
        initrd.write_bytes(base + overlay.encode())
        command = [
            QEMU, "-M", "pc", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-m", str(_MEMORY_MIB), "-smp", "1", "-accel", "tcg", "-cpu", "max",
            "-kernel", str(kernel.image), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off",
            "-serial", f"file:{console}", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=out,path={out}", "-device", "virtserialport,chardev=out",
        ]  # fmt: skip
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
        lines = out.read_text(errors="replace").splitlines() if out.exists() else []
        tail = console.read_text(errors="replace")[-2000:] if console.exists() else ""
    if not lines or lines[-1] != "exit 0":
        raise RuntimeError(f"the guest {kernel.release} ended early: {lines[-1:]} {tail}")
    head, *answers = [json.loads(line) for line in lines[:-1]]
    return Answers(head, {answer["job"]: answer for answer in answers})
