"""The log that BPF_PROG_LOAD and BPF_BTF_LOAD write where their caller wants it.

Source: kernel/bpf/log.c ``bpf_verifier_log_attr_valid``, ``bpf_verifier_vlog`` and
``bpf_vlog_finalize``; ``bpf_log_attr_init`` of 7.2.

Example:
    >>> log = LoadLog.of(attr, "log_")
    >>> log.finish(text, peak=len(text))
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EFAULT, EINVAL, ENOSPC
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.attributes import Attr
from bpfseal.kernel.model.refusal import refusal

_FIXED: Final = 8
_LEVELS: Final = 15
"""BPF_LOG_FIXED; all levels, with BPF_LOG_STATS (BPF_LOG_MASK)."""

_MAX_SIZE: Final = 0xFFFFFFFF >> 2
_SOURCE: Final = "kernel/bpf/log.c"


@dataclass(frozen=True, slots=True)
class LoadLog:
    """Where a log goes.

    Attributes:
        attr: the attributes of the call.
        prefix: how their fields for the log begin.
    """

    attr: Attr
    prefix: str

    @classmethod
    def of(cls, attr: Attr, prefix: str) -> LoadLog:
        """Check the fields for the log.

        Raises:
            KernelError: EINVAL for a buffer without a size or a level, or the reverse.
        """
        made = cls(attr, prefix)
        buffer, size, level = made._field("buf"), made._field("size"), made.level
        if (
            bool(buffer) != bool(size)
            or (buffer and not level)
            or level & ~_LEVELS
            or size > _MAX_SIZE
        ):
            what = f"a log of level {level}, {size} bytes at {buffer:#x}"
            raise refusal(EINVAL, f"{_SOURCE} bpf_verifier_log_attr_valid", what)
        return made

    def _field(self, name: str) -> int:
        return self.attr[self.prefix + name]

    @property
    def level(self) -> int:
        """What is written, 0 for nothing."""
        return self._field("level")

    def finish(self, text: str, peak: int) -> None:
        """Write a log, its beginning or its end if there is no room for all, and its true size.

        Args:
            text: the log.
            peak: characters that it had at most, before parts were taken back.

        Raises:
            KernelError: ENOSPC for no room, EFAULT for a buffer that cannot be written.
        """
        source = f"{_SOURCE} bpf_vlog_finalize"
        if not self.level:
            self.attr.give_back(f"{self.prefix}true_size", 0)
            return
        data = text.encode()
        longest = max(peak, len(data)) + 1 if data or peak else 0
        room = self._field("size")
        try:
            if room and longest:
                kept = room - 1
                is_fixed = self.level & _FIXED
                shown = data[:kept] if is_fixed else data[max(len(data) - kept, 0) :]
                self.attr.write(f"{self.prefix}buf", shown + b"\0")
        except KernelError as error:
            raise refusal(EFAULT, source, "the log cannot be written") from error
        finally:
            self.attr.give_back(f"{self.prefix}true_size", longest)
        if room and longest > room:
            raise refusal(ENOSPC, source, f"a log of {longest} bytes, and room for {room}")
