r"""What the command line prints: results on stdout, messages on stderr.

With ``--json`` stdout gets one JSON document at the end and nothing else. Otherwise text, with
colour and boxed tables on a terminal only (``NO_COLOR`` is honoured). Names out of objects, bundles
and certificates may hold anything, so control characters never reach the terminal.

Example:
    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from bpfseal.cli.secrets import Redactor
from bpfseal.cli.streams import stdout, write_stderr, writing_stdout
from bpfseal.errors import BpfsealError

if TYPE_CHECKING:
    import rich.console

_Item = TypeVar("_Item")


def printable(text: str) -> str:
    """Return the text with everything that is not printable escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def type_name(kind: type[IntEnum], number: int) -> str:
    """Return the kernel's name of a type in lower case, or its number."""
    return kind(number).name.lower() if number in kind.__members__.values() else str(number)


class Console:
    """Prints results and messages, and collects the results for ``--json``.

    Attributes:
        json: print one JSON document instead of text.
        verbose: print details.
        debug: print a traceback with an error.
        verb: the verb that runs, or ``""``.
        sources: where options about trust come from, if not from the command line; by name.
        redact: takes PINs out of everything that is printed.
    """

    def __init__(self, *, json: bool = False, verbose: bool = False, debug: bool = False) -> None:
        self.json = json
        self.verbose = verbose
        self.debug = debug
        self.verb = ""
        self.sources: dict[str, str] = {}
        self.redact = Redactor()
        self._results: list[dict[str, Any]] = []
        self._error: BpfsealError | None = None
        self._is_finished = False

    def result(self, **fields: Any) -> None:
        """Add an entry to the JSON document."""
        self._results.append(fields)

    def say(self, text: str) -> None:
        """Print one line of the human result."""
        if not self.json:
            self._print(text)

    def verdict(self, text: str, *, good: bool) -> None:
        """Print one line of the human result that says yes or no."""
        if not self.json:
            self._print(text, style="green" if good else "red")

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table of the human result: boxed on a terminal, plain columns elsewhere."""
        if self.json:
            return
        cells = [[self._shown(cell) for cell in row] for row in rows]
        with writing_stdout():
            if terminal := _terminal(stdout()):
                from rich.table import Table
                from rich.text import Text

                table = Table()
                for header in headers:
                    table.add_column(header, overflow="fold")  # never cut: names decide
                for row in cells:
                    table.add_row(*(Text(_encodable(cell, sys.stdout)) for cell in row))
                terminal.print(table)
                return
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        for row in (list(headers), *cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._print("  " + line.rstrip())

    def note(self, text: str) -> None:
        """Print a message."""
        write_stderr(_encodable(f"bpfseal: {self._shown(text)}", sys.stderr) + "\n")

    def detail(self, text: str) -> None:
        """Print a message if ``-v`` was given."""
        if self.verbose:
            self.note(text)

    def complain(self, error: BpfsealError) -> None:
        """Print an error as one line."""
        self.note(f"{self.verb}: {error}" if self.verb else str(error))

    def trace(self) -> None:
        """Print where the error comes from that is being handled, if ``--debug`` was given."""
        if self.debug:
            lines = self.redact(traceback.format_exc()).splitlines()
            shown = "".join(f"{printable(line)}\n" for line in lines)
            write_stderr(_encodable(shown, sys.stderr))

    def fail(self, error: BpfsealError) -> None:
        """Print the error that ended the verb, and remember it for the JSON document."""
        self._error = error
        self.complain(error)

    def progress(self, items: Iterable[_Item], *, total: int, title: str) -> Iterator[_Item]:
        """Yield the items; with a progress bar if there are many and stderr is a terminal."""
        terminal = None if self.json or total < 2 else _terminal(sys.stderr)
        if terminal is None:
            yield from items
            return
        from rich.progress import track

        yield from track(items, title, total=total, console=terminal, transient=True)

    def finish(self, status: int) -> None:
        """Print the JSON document, if one is wanted; a second time does nothing.

        What was decided with options about trust from elsewhere is said to be so.
        """
        if self._is_finished:
            return
        self._is_finished = True
        if self.sources and not self._error:
            told = ", ".join(f"--{name} from {place}" for name, place in self.sources.items())
            self.note(f"{self.verb}: {told}")
        if not self.json:
            return
        document: dict[str, Any] = {
            "verb": self.verb,
            "status": status,
            "results": self._results,
        }
        if self.sources:
            document["options_from"] = self.sources
        if self._error:
            document["error"] = error_fields(self._error)
        text = json.dumps(self.redact.document(document), indent=2)
        with writing_stdout():
            print(text, file=stdout())

    def _print(self, text: str, style: str = "") -> None:
        with writing_stdout():
            text = _encodable(self._shown(text), stdout())
            if style and (terminal := _terminal(stdout())):
                from rich.text import Text

                terminal.print(Text(text, style), soft_wrap=True)
            else:
                print(text, file=stdout())

    def _shown(self, text: str) -> str:
        return printable(self.redact(text))


def error_fields(error: BpfsealError) -> dict[str, Any]:
    """Return an error as fields of the JSON document."""
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "where": error.where,
        "hint": error.hint,
        "status": error.exit_status,
    }


def _terminal(stream: TextIO | None) -> rich.console.Console | None:
    if stream is None or not stream.isatty():
        return None
    from rich.console import Console as RichConsole

    return RichConsole(file=stream, highlight=False)


def _encodable(text: str, stream: TextIO | None) -> str:
    encoding = (stream and stream.encoding) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
