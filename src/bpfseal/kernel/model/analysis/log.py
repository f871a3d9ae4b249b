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

UNENDED: Final = "expected prog array map for tail call"
"""A line that kernels do not end."""

_STATISTICS: Final = 4
"""BPF_LOG_STATS (include/linux/bpf_verifier.h)."""

_COMMENT_COLUMN: Final = 38


class Log:
    """Lines of a log.

    Attributes:
        level: 0 for no paths, 1 for the path that failed, 2 for all paths.
        is_wanted: anything is written at all.
        has_statistics: how much work it was is written.
        peak: the most characters that there were.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level & 3
        self.is_wanted = bool(level)
        self.has_statistics = bool(level & _STATISTICS)
        self._lines: list[str] = []
        self._size = 0
        self.peak = 0

    @property
    def text(self) -> str:
        """All lines."""
        return "".join(f"{line}\n" for line in self._lines)

    @property
    def position(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def ends_with(self, line: str) -> bool:
        """Whether a line is the last one."""
        return bool(self._lines) and self._lines[-1] == line

    def write(self, line: str, *, joins: bool = False) -> None:
        """Append a line, or if it `joins`, append it to the last one."""
        if joins:
            before = self._lines.pop()
            self._size -= len(before) + 1
            line = before + line
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > self.peak:
            self.peak = self._size

    def comment(self, text: str) -> None:
        """Append a comment to the last line."""
        line = self._lines[-1]
        padded = line.ljust(_COMMENT_COLUMN) if len(line) < _COMMENT_COLUMN else line + " " * 8
        self._lines[-1] = f"{padded}; {text}"
        self._size += len(self._lines[-1]) - len(line)
        if self._size > self.peak:
            self.peak = self._size

    def rewind(self, position: int) -> None:
        """Forget what was written since a position, unless all paths are kept."""
        if self.level < 2:
            self._size -= sum(len(line) + 1 for line in self._lines[position:])
            del self._lines[position:]


def statistics(
    insns: int, limit: int, most_states: int = 0, states: int = 0, marks: int = 0
) -> str:
    """Return the line that ends the log (``print_verification_stats``).

    Args:
        insns: how many insns were looked at, counting repeats.
        limit: how many may be.
        most_states: the most states that were remembered at one insn.
        states: how many were remembered.
        marks: the longest way that a mark of liveness went.
    """
    return (
        f"processed {insns} insns (limit {limit}) max_states_per_insn {most_states}"
        f" total_states {states} peak_states {states} mark_read {marks}"
    )
