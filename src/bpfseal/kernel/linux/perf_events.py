"""perf_event_open(2): the events that programs attach to or write to.

A part of `bpfseal.kernel.linux.kernel.LinuxKernel`.
"""

from __future__ import annotations

import fcntl
import platform
import struct
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.linux.syscalls import Buffer, perf_event_open
from bpfseal.kernel.protocol import PerfEvent

_ATTR: Final = struct.Struct("=IIQQQQQIIQQ")
"""``struct perf_event_attr`` (include/uapi/linux/perf_event.h): type, size, config, sample_period,
sample_type, read_format, flags, wakeup_events, bp_type, config1, config2 (PERF_ATTR_SIZE_VER1)."""

_DISABLED: Final = 1 << 0
_FREQUENCY: Final = 1 << 10
"""Bits of the flags: `disabled` and `freq`."""

_IOC_ENABLE: Final = 0x2400 | (0x2000_0000 if platform.machine() == "ppc64le" else 0)
"""PERF_EVENT_IOC_ENABLE; powerpc has a bit for requests without an argument."""


class PerfEventCalls:
    """The calls about perf events of `bpfseal.kernel.protocol.MapKernel`."""

    def perf_event_open(self, request: PerfEvent) -> int:
        """Open a perf event that does not count yet, and return its fd."""
        name = Buffer(request.config1 + b"\0") if isinstance(request.config1, bytes) else None
        packed = _ATTR.pack(
            request.type,
            _ATTR.size,
            request.config,
            request.sample_period,
            request.sample_type,
            0,
            _DISABLED | (_FREQUENCY if request.is_frequency else 0),
            request.wakeup_events,
            0,
            name.address if name else request.config1,
            request.config2,
        )
        return perf_event_open(Buffer(packed), request.pid, request.cpu)

    def perf_event_enable(self, fd: int) -> None:
        """Let a perf event count."""
        try:
            fcntl.ioctl(fd, _IOC_ENABLE, 0)
        except OSError as error:
            raise KernelError(error.errno or 0, error.strerror or "") from None
