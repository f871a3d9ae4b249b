r"""The lines of a light skeleton, taken one after another.

A blob is one string of hex escapes over many lines; everything else is a line that is known but
for a name or a number.

Example:
    >>> lines = Lines("int x;\n", "tool.lskel.h")
    >>> lines.accept("int y;"), lines.accept("int x;"), lines.line
    (False, True, 2)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from bpfseal.errors import InputError

_MAX_LINE: Final = 1024
"""Bytes of the longest line outside of blobs."""

_ESCAPES: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\0|\\\n)*+")
_HEX: Final = re.compile("[0-9a-fA-F]*")


@dataclass(frozen=True, slots=True)
class Said:
    """What stands in a header, whole lines or a part of one.

    Attributes:
        line: the line on which it begins.
        text: what stands there.
    """

    line: int
    text: str


@dataclass(slots=True)
class Lines:
    """A text that is taken line by line.

    Attributes:
        text: the text.
        where: the file's name, for error messages.
        at: where the next line begins.
        line: its number.
    """

    text: str
    where: str
    at: int = 0
    line: int = 1

    def refuse(self, wanted: str) -> NoReturn:
        """Say that this is no light skeleton."""
        raise InputError(
            f"not a light skeleton as the reference tool writes it: expected {wanted[:100]!r}",
            where=f"{self.where}: line {self.line}",
        )

    def peek(self) -> str:
        """Return the next line without its end."""
        end = self.text.find("\n", self.at, self.at + _MAX_LINE + 1)
        return self.text[self.at : end] if end >= 0 else self.text[self.at : self.at + _MAX_LINE]

    def accept(self, line: str) -> bool:
        """Take a line if it comes next."""
        if not self.text.startswith(f"{line}\n", self.at):
            return False
        self.at += len(line) + 1
        self.line += 1
        return True

    def expect(self, *lines: str) -> None:
        """Take these lines, which must come next."""
        for line in lines:
            if not self.accept(line):
                self.refuse(line.strip() or "an empty line")

    def expect_one(self, *lines: str) -> None:
        """Take one of these lines, which must come next."""
        if not any(self.accept(line) for line in lines):
            self.refuse(lines[0].strip())

    def take(self, pattern: str, what: str) -> str:
        """Take a line of this form, and return its one part that varies."""
        line = self.peek()
        matched = re.fullmatch(pattern, line)
        if matched is None or not self.accept(line):
            self.refuse(what)
        return matched[1]

    def until(self, end: str) -> Said:
        """Take all lines up to this one, which is taken, too."""
        line, start = self.line, self.at
        stop = start if self.text.startswith(f"{end}\n", start) else -1
        if stop < 0:
            stop = self.text.find(f"\n{end}\n", start) + 1
            if not stop:
                self.refuse(end.strip())
        self.line += self.text.count("\n", start, stop)
        self.at = stop
        self.expect(end)
        return Said(line, self.text[start:stop])

    def blob(self, tail: str) -> bytes:
        """Take a string of hex escapes, whose first line is taken, and what stands behind it."""
        end = self.text.find('"', self.at)
        body = self.text[self.at : end] if end >= 0 else ""
        plain = body.replace("\\\n", "").replace("\\0", "\\x00")
        count, rest = divmod(len(plain), 4)
        digits = plain.replace("\\x", "")
        is_hex = not rest and plain[::4] == "\\" * count and plain[1::4] == "x" * count
        if end < 0 or not is_hex or len(digits) != 2 * count or not _HEX.fullmatch(digits):
            self.refuse_escape()
        self.line += body.count("\n")
        self.at = end
        self.expect(f'"{tail}')
        return bytes.fromhex(digits)

    def refuse_escape(self) -> NoReturn:
        """Say where a string holds something else than hex escapes."""
        matched = _ESCAPES.match(self.text, self.at)
        end = matched.end() if matched else self.at
        self.line += self.text.count("\n", self.at, end)
        raise InputError(
            f"{self.text[end : end + 4]!r} is no hex escape",
            where=f"{self.where}: line {self.line}",
        )
