"""Arrays of records that a program brings: func_info, line_info, CO-RE.

The kernel reads them one by one, when it needs them. A record may be longer than the kernel knows,
as long as the rest of it is zero.

Source: kernel/bpf/verifier.c ``check_btf_info``, in 7.2 kernel/bpf/check_btf.c.

Example:
    >>> given = Records(2, 8, bytes(16))
    >>> list(given.rows(FUNC_INFO))
    [(0, 0), (0, 0)]
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from errno import E2BIG, EFAULT, EINVAL
from typing import Final, NamedTuple

from bpfseal.kernel.model.refusal import refusal

MAX_SIZE: Final = 252
"""Bytes of the longest record (MAX_FUNCINFO_REC_SIZE)."""

_MAX_COUNT_BYTES: Final = (1 << 31) - 1


class Layout(NamedTuple):
    """One kind of record.

    Attributes:
        name: as in ``union bpf_attr``.
        words: its fields, as the first kernel that took it had them.
    """

    name: str
    words: struct.Struct


FUNC_INFO: Final = Layout("func_info", struct.Struct("<II"))
"""``struct bpf_func_info``: insn, and type id of the FUNC."""

LINE_INFO: Final = Layout("line_info", struct.Struct("<IIII"))
"""``struct bpf_line_info``: insn, where file name and line are in the strings of the BTF, and
line << 10 | column."""

CORE_RELO: Final = Layout("core_relo", struct.Struct("<IIII"))
"""``struct bpf_core_relo``: insn in bytes, type id, where the access string is, kind."""


@dataclass(frozen=True, slots=True)
class Records:
    """Records as they were passed.

    Attributes:
        count: how many there shall be.
        size: bytes of each.
        raw: what can be read of them.
    """

    count: int = 0
    size: int = 0
    raw: bytes = b""

    def rows(self, layout: Layout) -> Iterator[tuple[int, ...]]:
        """Yield the fields of each record.

        Raises:
            KernelError: EINVAL for a size or number that no kernel takes, E2BIG for a record with
                more in it than the kernel knows, EFAULT for one that cannot be read.
        """
        source = f"kernel/bpf/verifier.c, {layout.name}"
        known = layout.words.size
        if not self.count:
            return
        too_many = layout is not FUNC_INFO and self.count > _MAX_COUNT_BYTES // known
        if too_many or not known <= self.size <= MAX_SIZE or self.size % 4:
            is_told = layout is FUNC_INFO
            message = f"{self.count} {layout.name} records of {self.size} bytes"
            log = f"invalid func info rec size {self.size}" if is_told else ""
            raise refusal(EINVAL, source, message, log=log)
        for start in range(0, self.count * self.size, self.size):
            record = self.raw[start : start + self.size]
            if len(record) < self.size:
                raise refusal(EFAULT, source, f"record {start // self.size} cannot be read")
            if any(record[known:]):
                what = layout.name.replace("_info", " info") if layout is FUNC_INFO else layout.name
                log = f"nonzero tailing record in {what}"
                raise refusal(E2BIG, source, log, log=log)
            yield layout.words.unpack_from(record)
