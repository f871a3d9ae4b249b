"""Boot a kernel under QEMU with the jobs of a run, and collect what the agent says.

Emulation only (TCG): it works everywhere, without privileges.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .cpio import Archive
from .kernels import Kernel, with_builtin_key

QEMU = "qemu-system-x86_64"
_MEMORY_MIB = 1536

Answer = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What a guest said.

    Attributes:
        kernel: its description of the kernel.
        by_kind: the answers of the agent's jobs, by kind and name.
        seconds: how long each kind took in the guest; ``boot`` is the time up to the agent's
            first word, ``all`` the whole run.
    """

    kernel: str
    by_kind: Mapping[str, Mapping[str, Answer]]
    seconds: Mapping[str, float]

    def of(self, kind: str) -> Mapping[str, Answer]:
        """Return the answers of a kind, by name.

        Raises:
            RuntimeError: the jobs of this kind came to no end; the message is the traceback.
        """
        broken = self.by_kind["error"].get(kind)
        if broken is not None:
            raise RuntimeError(broken["text"])
        if kind not in self.seconds:
            raise RuntimeError(f"the process of the {kind} ended early")
        return self.by_kind[kind]


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files in the folder ``/jobs``; those in ``programs`` can be executed."""
    archive = Archive()
    for name, data in files.items():
        archive.add(f"jobs/{name}", data, 0o755 if "programs/" in name else 0o644)
    return archive.encode()


def run(kernel: Kernel, initrd: bytes, builtin_key: bytes, *, timeout: float = 1500) -> Answers:
    """Boot with an initramfs, and return the agent's answers.

    Args:
        kernel: what to boot.
        initrd: the guest's files.
        builtin_key: a certificate that the kernel finds in its image (DER).
        timeout: seconds after which the guest is killed.

    Raises:
        RuntimeError: the guest did not come to its end; the message holds its console's tail.
    """
    started = time.monotonic()
    first_word = 0.0
    with tempfile.TemporaryDirectory() as work:
        image, given, out, console = (Path(work, n) for n in ("image", "initrd", "out", "console"))
        image.write_bytes(with_builtin_key(kernel.image.read_bytes(), builtin_key))
        given.write_bytes(initrd)
        command = [
            QEMU, "-M", "pc", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-m", str(_MEMORY_MIB), "-smp", "1", "-accel", "tcg", "-cpu", "max",
            "-kernel", str(image), "-initrd", str(given),
            "-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off",
            "-serial", f"file:{console}", "-device", "virtio-serial-pci",
            "-chardev", f"file,id=out,path={out}", "-device", "virtserialport,chardev=out",
        ]  # fmt: skip
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            while process.poll() is None and time.monotonic() < started + timeout:
                time.sleep(0.1)
                if not first_word and out.exists() and out.stat().st_size:
                    first_word = time.monotonic() - started
            process.kill()
        lines = out.read_text(errors="replace").splitlines() if out.exists() else []
        tail = console.read_text(errors="replace")[-3000:] if console.exists() else ""
    if not lines or lines[-1] != "exit 0":
        raise RuntimeError(f"the guest {kernel.release} ended early: {lines[-1:]} {tail}")
    by_kind: dict[str, dict[str, Answer]] = defaultdict(dict)
    for line in lines[:-1]:
        answer = json.loads(line)
        by_kind[answer.pop("kind")][answer.pop("name")] = answer
    seconds = {name: answer["seconds"] for name, answer in by_kind["seconds"].items()}
    times = {"boot": first_word, **seconds, "all": time.monotonic() - started}
    return Answers(by_kind["head"]["kernel"]["text"], by_kind, times)
