r"""String tables of ELF files and BTF: zero-terminated strings, named by their offsets.

Strings share bytes: any number of things may have the same one, and a string may be the end of a
longer one. So a small file can name far more text than it holds. A table decodes each string once,
and no more text in all than a few times its own size.

Example:
    >>> table = StringTable(b"\0task\0", "names")
    >>> table.at(1), table.at(3)
    ('task', 'sk')
"""

from __future__ import annotations

from typing import Final

from bpfseal.errors import InputError

_SHARING: Final = 4
"""Decoded text for each byte of a table. Linkers that let strings share their ends gain a tenth."""

_ALWAYS: Final = 1 << 16
"""Bytes of text that any table may hold."""


class StringTable:
    """The strings of a table.

    Args:
        data: the bytes of the table.
        where: its name, for errors.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._known: dict[int, str] = {}
        self._left = _SHARING * len(data) + _ALWAYS

    def at(self, offset: int, *, limit: int | None = None, where: str = "") -> str:
        """Return the string at an offset; bytes that are no UTF-8 are escaped.

        Args:
            offset: where it begins.
            limit: bytes that it may have; any number by default.
            where: what it is, for errors; by default the name of the table.

        Raises:
            InputError: it lies outside the table or is longer than `limit`, or the strings of the
                table share so many bytes that they are far longer than it.
        """
        known = self._known.get(offset)
        if known is not None:
            return known
        stop = len(self._data) if limit is None else offset + limit + 1
        end = self._data.find(0, offset, stop)
        where = where or self._where
        if end < 0:
            if stop < len(self._data):
                raise InputError(f"it is longer than {limit} bytes", where=where)
            raise InputError("it lies outside its string table", where=where)
        self._left -= end - offset
        if self._left < 0:
            raise InputError("the strings of its table overlap too often", where=where)
        text = self._known[offset] = self._data[offset:end].decode("utf-8", "backslashreplace")
        return text
