r"""A C light skeleton (``.lskel.h``) of the reference tool, taken apart.

The header declares a struct that begins with the loader's context, and holds each blob as a C
string of hex escapes:

    static const char opts_insn[] __attribute__((__aligned__(8))) = "\
    \xbf\x16\0\0...";

It is read as C tokens, and everything that is used must have exactly the form that the reference
tool writes. What the header means is the matter of `bpfseal.bundle.lskel_import`.

Example:
    >>> declaration = "static const char opts_sig[] __attribute__((__aligned__(8)))"
    >>> read_arrays(declaration + r' = "\x30\0";')
    {'opts_sig': b'0\x00'}
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpfseal.bundle.media import MAX_ENTRIES
from bpfseal.errors import InputError

MAX_HEADER_SIZE: Final = 64 << 20
"""The largest header, in bytes. The largest of the objects at hand makes 350 KB."""

MAX_TOKENS: Final = 1 << 20
"""The most C tokens of a header; a blob is one of them."""

_TOKEN: Final = re.compile(
    r"""(?P<blank>(?:\s|/\*(?s:.*?)\*/|//[^\n]*|\#(?:\\\n|[^\n])*)+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][A-Za-z0-9_]*)
    |"(?P<string>[^"]*)"
    |(?P<unended>"|/\*)
    |(?P<mark>->|.)""",
    re.VERBOSE,
)
_BLOB: Final = re.compile(r"(?:\\(?:x[0-9a-fA-F]{2}|0|\n))*")
_ARRAY_TAIL: Final = ("[", "]", "__attribute__", "(", "(", "__aligned__", "(", "8", *")))", "=")
_INITIAL_VALUE: Final = "data"


class Token(NamedTuple):
    """A C token: its text (of a string, what is between the quotes), and where it begins."""

    kind: str
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class LightSkeleton:
    """What a header tells.

    Attributes:
        name: the name of its struct.
        maps: the members of ``maps``, in order.
        programs: the members of ``progs``, in order.
        arrays: the blobs of the load function by name (``opts_insn``, ``opts_data``, ...).
        initial_values: what the open function puts into global data, by the map's member.
        tracepoints: the raw tracepoint of a program, by the program's member.
    """

    name: str
    maps: tuple[str, ...]
    programs: tuple[str, ...]
    arrays: dict[str, bytes]
    initial_values: dict[str, bytes]
    tracepoints: dict[str, str]


def parse_header(data: bytes, where: str) -> LightSkeleton:
    """Take a header apart.

    Args:
        data: the file.
        where: its name, for error messages.

    Raises:
        InputError: it is too large, no light skeleton, or not in the form of the reference tool;
            with the line.
    """
    if len(data) > MAX_HEADER_SIZE:
        raise InputError(f"larger than {MAX_HEADER_SIZE} bytes", where=where)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError("not a text in UTF-8", where=f"{where}: line {line}") from None
    return _Parser(text, where).header()


def read_arrays(text: str) -> dict[str, bytes]:
    """Return the byte strings of the header's load function, by name.

    Raises:
        InputError: see `parse_header`; the header need not be whole.
    """
    parser = _Parser(text, "light skeleton")
    parser.body()
    return parser.arrays


@dataclass(slots=True)
class _Parser:
    text: str
    where: str
    tokens: list[Token] = field(default_factory=list)
    position: int = 0
    name: str = ""
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    arrays: dict[str, bytes] = field(default_factory=dict)
    initial_values: dict[str, bytes] = field(default_factory=dict)
    tracepoints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup or ""
            if kind == "blank":
                continue
            token = Token(kind, match[kind], match.start())
            if kind == "unended":
                raise self.error(f"no end of what begins with {token.text}", token)
            if len(self.tokens) == MAX_TOKENS:
                raise self.error(f"more than {MAX_TOKENS} tokens", token)
            self.tokens.append(token)

    # Tokens

    def error(self, message: str, token: Token | None = None) -> InputError:
        """Return an error with the line of a token; of the next one if none is given."""
        at = token or (self.tokens[self.position] if self.position < len(self.tokens) else None)
        line = self.text.count("\n", 0, at.offset if at else len(self.text)) + 1
        return InputError(message, where=f"{self.where}: line {line}")

    def peek(self, *texts: str) -> bool:
        """Whether these tokens come next."""
        found = self.tokens[self.position : self.position + len(texts)]
        return [t.text for t in found if t.kind != "string"] == list(texts)

    def accept(self, *texts: str) -> bool:
        """Take these tokens if they come next."""
        if not self.peek(*texts):
            return False
        self.position += len(texts)
        return True

    def expect(self, *texts: str) -> None:
        """Take these tokens, which must come next."""
        for text in texts:
            if not self.accept(text):
                raise self.error(f"expected {text!r}")

    def take(self, kind: str, what: str) -> str:
        """Take a token of a kind."""
        if self.position == len(self.tokens) or self.tokens[self.position].kind != kind:
            raise self.error(f"expected {what}")
        self.position += 1
        return self.tokens[self.position - 1].text

    # Grammar

    def header(self) -> LightSkeleton:
        """Read the struct and what follows it."""
        self.struct()
        self.body()
        if missing := [name for name in ("opts_data", "opts_insn") if name not in self.arrays]:
            raise self.error(f"no array {missing[0]}: not a light skeleton")
        maps, programs = self.members.get("maps", ()), self.members.get("progs", ())
        unknown = [
            *(self.initial_values.keys() - set(maps)),
            *(self.tracepoints.keys() - set(programs)),
        ]
        if unknown:
            raise self.error(f"{min(unknown)} is no member of the struct")
        return LightSkeleton(
            self.name, maps, programs, self.arrays, self.initial_values, self.tracepoints
        )

    def struct(self) -> None:
        """Read the struct whose first member is the context."""
        if not self.accept("struct"):
            raise self.error("no struct at the beginning: not a light skeleton")
        self.name = self.take("name", "the name of the struct")
        self.expect("{", "struct", "bpf_loader_ctx", "ctx", ";")
        while not self.accept("}", ";"):
            if self.accept("struct", "{"):
                self.group()
            elif self.accept("struct"):
                self.take("name", "a struct's name")
                self.skip_braces()
                self.expect("*")
                self.take("name", "a member")
                self.expect(";")
            else:
                self.expect("__s32", "keyring_id", ";")

    def group(self) -> None:
        """Read the members of ``maps``, ``progs`` or ``links``."""
        kinds = {("struct", "bpf_map_desc"): "maps", ("struct", "bpf_prog_desc"): "progs"}
        found: list[str] = []
        group = "links"
        while not self.accept("}"):
            for words, name in kinds.items():
                if self.accept(*words):
                    group = name
                    break
            else:
                self.expect("int")
            found.append(self.take("name", "a member"))
            self.expect(";")
            if len(found) > MAX_ENTRIES:
                raise self.error(f"more than {MAX_ENTRIES} members")
        self.expect(group, ";")
        if len(set(found)) < len(found) or group in self.members:
            raise self.error(f"a member of {group} occurs twice")
        self.members[group] = tuple(found)

    def skip_braces(self) -> None:
        """Pass over a block in braces."""
        self.expect("{")
        depth = 1
        while depth:
            if self.position == len(self.tokens):
                raise self.error("a block without end")
            token = self.tokens[self.position]
            if token.kind == "mark":
                depth += {"{": 1, "}": -1}.get(token.text, 0)
            self.position += 1

    def body(self) -> None:
        """Read what matters of the functions."""
        program = ""
        while self.position < len(self.tokens):
            if self.accept("static", "const", "char"):
                self.array()
            elif self.accept("skel_raw_tracepoint_open", "("):
                if not self.accept("NULL", ","):
                    self.tracepoints[program] = self.take("string", "the name of a tracepoint")
            else:
                token = self.tokens[self.position]
                if token.kind == "name" and token.text.startswith(f"{self.name}__"):
                    stem = token.text.removeprefix(f"{self.name}__")
                    program = stem.removesuffix("__attach")
                self.position += 1

    def array(self) -> None:
        """Read a blob, and for global data the map that it belongs to."""
        name = self.take("name", "the name of an array")
        self.expect(*_ARRAY_TAIL)
        start = self.position
        data = self.blob(self.take("string", "a string"), self.tokens[start])
        self.expect(";")
        known, key = self.arrays, name
        if name == _INITIAL_VALUE:
            self.expect("skel", "->")
            known, key = self.initial_values, self.take("name", "a member")
        if key in known:
            raise self.error(f"{key} occurs twice", self.tokens[start])
        known[key] = data

    def blob(self, body: str, token: Token) -> bytes:
        """Return the bytes of a string of hex escapes."""
        matched = _BLOB.match(body)
        end = matched.end() if matched else 0
        if end != len(body):
            at = token._replace(offset=token.offset + 1 + end)
            raise self.error(f"{body[end : end + 4]!r} is no hex escape", at)
        return bytes.fromhex(body.replace("\\\n", "").replace("\\0", "00").replace("\\x", ""))
