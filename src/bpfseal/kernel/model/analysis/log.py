"""The verifier's log: which insns were looked at, and in what state.

At level 1 the log keeps the path that failed; at level 2 it keeps all of them; at level 0 only the
reason of a refusal. Insns are written as kernel/bpf/disasm.c does, states as kernel/bpf/log.c.

Example:
    >>> log = Log(1)
    >>> log.write("R2 !read_ok")
    >>> log.text.splitlines()
    ['R2 !read_ok']
"""

from __future__ import annotations

from typing import Final

_COMMENT_COLUMN: Final = 38


class Log:
    """Lines of a log.

    Attributes:
        level: 0 for none, 1 for the path that failed, 2 for all paths.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level & 3
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self._lines)

    @property
    def position(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def write(self, line: str) -> None:
        """Append a line."""
        self._lines.append(line)

    def comment(self, text: str) -> None:
        """Append a comment to the last line."""
        line = self._lines[-1]
        padded = line.ljust(_COMMENT_COLUMN) if len(line) < _COMMENT_COLUMN else line + " " * 8
        self._lines[-1] = f"{padded}; {text}"

    def rewind(self, position: int) -> None:
        """Forget what was written since a position, unless all paths are kept."""
        if self.level < 2:
            del self._lines[position:]
