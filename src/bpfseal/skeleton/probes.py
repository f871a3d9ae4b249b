"""Attach to perf events: tracepoints, probes in the kernel and in programs, many at once.

Example:
    >>> attach_probe(target, Arguments("on_unlink", "KPROBE", {}))  # doctest: +SKIP
    12
"""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bpfseal.bpf.uapi import AttachType
from bpfseal.errors import CapabilityError, UsageError
from bpfseal.kernel.linux.tracefs import probe_event, traceable_functions, tracepoint_id
from bpfseal.kernel.protocol import PerfEvent
from bpfseal.skeleton.arguments import Arguments
from bpfseal.skeleton.elf_symbols import function_offsets
from bpfseal.skeleton.target import Target

_TYPE_TRACEPOINT: Final = 2
"""PERF_TYPE_TRACEPOINT (include/uapi/linux/perf_event.h)."""

_MULTI_RETURN: Final = 1
"""BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN."""

_SYSCALL_PREFIXES: Final = {
    "x86_64": "__x64_sys_",
    "aarch64": "__arm64_sys_",
    "s390x": "__s390x_sys_",
    "riscv64": "__riscv_sys_",
    "ppc64le": "sys_",
    "loongarch64": "sys_",
}
"""What the functions of system calls are called (``arch_specific_syscall_pfx`` in libbpf.c)."""

_PLACE: Final = re.compile(r"(?P<function>[^+]+)(?:\+(?P<offset>0x[0-9a-fA-F]+|\d+))?")
_WILDCARDS: Final = re.compile(r"[*?\[]")


def says_return(section: str) -> bool:
    """Whether a section names the return of a function: ``kretprobe``, ``uretprobe.multi``."""
    return section.startswith(("kret", "uret"))


def attach_event(target: Target, given: Arguments) -> int:
    """Attach to one perf event, which the caller describes."""
    event = given.require("event")
    if not isinstance(event, PerfEvent):
        raise UsageError(f"event is a PerfEvent, not {event!r}")
    return _on_event(target, given, event)


def attach_tracepoint(target: Target, given: Arguments) -> int:
    """Attach to a tracepoint: ``tp/sched/sched_switch``."""
    section_category, _, section_name = target.place.partition("/")
    name = given.require("tracepoint", section_name)
    category = given.take("category", section_category)
    if "/" in name:
        category, _, name = name.partition("/")
    return _on_event(target, given, PerfEvent(_TYPE_TRACEPOINT, tracepoint_id(category, name)))


def attach_probe(target: Target, given: Arguments) -> int:
    """Attach one probe: ``kprobe/FUNCTION+OFFSET``, ``ksyscall/NAME``, ``uprobe/PATH:FUNCTION``."""
    stem = target.stem.removesuffix(".s")
    is_return = bool(given.take("is_return", says_return(stem)))
    if stem in ("uprobe", "uretprobe") or (not stem and given.has("path")):
        return _on_event(target, given, _uprobe(target, given, is_return=is_return))
    place = target.place
    if stem in ("ksyscall", "kretsyscall") and place:
        place = _system_call(place)
    function, offset = _split(given.require("function", place))
    number, return_bit = probe_event("kprobe")
    event = PerfEvent(
        type=number,
        config=return_bit if is_return else 0,
        config1=function.encode(),
        config2=given.number("offset", offset),
    )
    return _on_event(target, given, event)


def _uprobe(target: Target, given: Arguments, *, is_return: bool) -> PerfEvent:
    section_path, _, section_place = target.place.rpartition(":")
    path = str(given.require("path", section_path))
    place = given.take("function", section_place)
    function, offset = _split(place) if place else ("", 0)
    if not path.startswith("/"):
        raise UsageError(f"{path!r} is no absolute path", hint="attach(path='/...')")
    if function:
        offset += _function_offset(path, function)
    offset = given.number("offset", offset)
    number, return_bit = probe_event("uprobe")
    pid = given.number("pid", -1)
    return PerfEvent(
        type=number,
        config=return_bit if is_return else 0,
        config1=path.encode(),
        config2=offset,
        pid=pid,
        cpu=0 if pid == -1 else -1,
    )


def attach_kprobe_multi(target: Target, given: Arguments) -> int:
    """Attach to all kernel functions of a pattern or list: ``kprobe.multi/vfs_*``."""
    wanted = _texts(given.require("functions", target.place))
    is_return = given.take("is_return", says_return(target.stem))
    given.finish()
    names: list[str] = []
    for one in wanted:
        names += traceable_functions(one) if _WILDCARDS.search(one) else [one]
    if not names:
        raise CapabilityError(f"the kernel has no function {', '.join(wanted)}")
    return target.link(
        kind="kprobe_multi",
        numbers={"cnt": len(names), "flags": _MULTI_RETURN if is_return else 0},
        texts={"syms": tuple(names)},
    )


def attach_uprobe_multi(target: Target, given: Arguments) -> int:
    """Attach to all functions of a file that match: ``uprobe.multi/PATH:PATTERN``."""
    section_path, _, pattern = target.place.rpartition(":")
    path = str(given.require("path", section_path))
    offsets = given.take("offsets")
    wanted = given.take("functions", pattern)
    is_return = given.take("is_return", says_return(target.stem))
    pid = given.number("pid")
    given.finish()
    if offsets is None:
        offsets = [
            offset
            for one in _texts(wanted)
            for offset in sorted(function_offsets(Path(path), one).values())
        ]
    if not offsets:
        raise CapabilityError(f"no function {wanted}", where=path)
    return target.link(
        kind="uprobe_multi",
        numbers={
            "cnt": len(offsets),
            "pid": pid,
            "flags": _MULTI_RETURN if is_return else 0,
        },
        data={
            "path": path.encode() + b"\0",
            "offsets": struct.pack(f"={len(offsets)}Q", *offsets),
        },
    )


def _on_event(target: Target, given: Arguments, event: PerfEvent) -> int:
    """Open an event and attach to it; the link keeps it, so that its fd can be closed."""
    cookie = given.number("cookie")
    given.finish()
    kernel = target.kernel
    fd = kernel.perf_event_open(event)
    try:
        link = target.link(
            fd,
            attach_type=AttachType.PERF_EVENT,
            kind="perf_event" if cookie else "",
            numbers={"bpf_cookie": cookie} if cookie else {},
        )
        try:
            kernel.perf_event_enable(fd)
        except BaseException:
            kernel.close(link)
            raise
    finally:
        kernel.close(fd)
    return link


def _system_call(name: str) -> str:
    prefix = _SYSCALL_PREFIXES.get(platform.machine())
    if prefix is None:
        raise CapabilityError(f"names of system calls on {platform.machine()} are not known")
    return prefix + name


def _split(place: str) -> tuple[str, int]:
    """Return function and offset of ``FUNCTION+OFFSET``; a lone number is an offset."""
    if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", place):
        return "", int(place, 0)
    match = _PLACE.fullmatch(place)
    if match is None:
        raise UsageError(f"{place!r} is no FUNCTION+OFFSET")
    return match["function"], int(match["offset"] or "0", 0)


def _function_offset(path: str, function: str) -> int:
    found = function_offsets(Path(path), re.sub(r"([*?\[])", r"[\1]", function))
    if function not in found:
        raise CapabilityError(f"no function {function!r}", where=path)
    return found[function]


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return list(value)
    raise UsageError(f"functions are names, not {value!r}")
