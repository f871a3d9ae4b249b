"""Load each object's bundle: what the kernel takes by itself, and then each variant, as signed and
tampered with."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.store import unpack
from bpfseal.errors import BpfsealError, KernelError
from bpfseal.kernel.choose import load_bundle
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.linux.syscalls import Buffer
from bpfseal.kernel.load import LoadedSkeleton, load
from bpfseal.kernel.protocol import NO_POINTERS, RunResult
from support.kernel_objects import open_fds

Answer = dict[str, Any]

TRACE = Path("/sys/kernel/tracing/trace")
_LOG_SIZE = 1 << 20
_LOG_FIELDS = 8
"""Offset of log_level, log_size and log_buf in a loader's context (struct bpf_loader_ctx)."""


class TellingKernel(LinuxKernel):
    """The kernel, with a log for what a loader loads: the verifier's own words about it."""

    def __init__(self) -> None:
        super().__init__()
        self.log = ""

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        log, telling = Buffer(bytes(_LOG_SIZE)), bytearray(ctx)
        struct.pack_into("<IIQ", telling, _LOG_FIELDS, 1, _LOG_SIZE, log.address)
        result = super().prog_run(fd, bytes(telling), pointers)
        self.log = log.data.split(b"\0", 1)[0].decode(errors="replace")
        return result


def tampered(signed: SignedLoader) -> SignedLoader:
    """Return the loader with one bit of its metadata changed behind the signature's back."""
    data = bytearray(signed.loader.metadata)
    data[len(data) // 2] ^= 1
    return replace(signed, loader=replace(signed.loader, metadata=bytes(data)))


def attempt(work: Callable[[], LoadedSkeleton]) -> Answer:
    """Load, close what came up, and say what happened."""
    before = open_fds()
    try:
        skeleton = work()
    except KernelError as error:
        answer: Answer = {"step": error.step, "errno": error.errno_name, "message": error.message}
    except BpfsealError as error:
        answer = {"step": "before", "errno": type(error).__name__, "message": str(error)}
    else:
        answer = {"step": "loaded", "errno": "", "scheme": skeleton.signed.loader.scheme_name}
        for fd in {*skeleton.map_fds.values(), *skeleton.prog_fds.values()} - {0}:
            os.close(fd)
    return answer | {"leaked": open_fds() - before}


def reason(bundle: Bundle, scheme: str) -> Answer:
    """Load a bundle whose loaders print their steps: what they said, and what the verifier said."""
    kernel = TellingKernel()
    TRACE.write_text("")
    variant = bundle.variant(scheme)
    attempt(partial(load, kernel, variant, unsigned=not variant.signatures))
    lines = [line.split("bpf_trace_printk: ", 1) for line in TRACE.read_text().splitlines()]
    words = [line for line in kernel.log.splitlines() if not line.startswith("processed ")]
    return {"steps": [line[1] for line in lines if len(line) == 2], "log": words[-6:]}


def run(jobs: Path) -> Iterator[tuple[str, Answer]]:
    """Load all objects; the first answer is the scheme that the kernel's features speak for."""
    kernel = LinuxKernel()
    kernel.keyrings.add_key(KeyringId.SESSION, (jobs / "certificate").read_bytes())
    scheme = kernel.accepted_scheme()
    yield "", {"scheme": scheme}
    for path in sorted((jobs / "objects").glob("*.bpfseal")):
        bundle = unpack(path.read_bytes(), path.stem)
        answers: Answer = {"auto": attempt(partial(load_bundle, kernel, bundle))}
        for signed in bundle.variants:
            name = signed.loader.scheme_name
            bad = partial(load, kernel, tampered(signed), check_metadata=False)
            good = answers["auto"] if name == scheme else attempt(partial(load, kernel, signed))
            answers |= {f"{name} good": good, f"{name} tampered": attempt(bad)}
        if scheme and answers["auto"]["step"] == "prog_run":
            traced = unpack(path.with_suffix(".traced").read_bytes(), path.stem)
            answers["reason"] = reason(traced, scheme)
        yield path.stem, {"loads": answers}
