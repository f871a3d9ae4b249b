r"""Parse a policy as the kernel does, with its errnos.

Source: security/ipe/policy_parser.c ``ipe_parse_policy`` and the functions that it calls. What it
takes is bytes: names may hold any, a NUL ends the text, and a byte 0xA0 at the end of a line is
white space.

Example:
    >>> policy = parse_policy(b"policy_name=p policy_version=1.0.0\nDEFAULT action=ALLOW\n")
    >>> policy.name, str(policy.version), policy.default
    ('p', '1.0.0', <Action.ALLOW: 'ALLOW'>)
    >>> parse_policy(b"policy_name=p policy_version=1.0\n")
    Traceback (most recent call last):
    bpfseal.kernel.model.ipe.parser.PolicyError: line 1: -EBADMSG: ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EBADMSG, EINVAL, ERANGE
from types import MappingProxyType
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.ipe.policy import (
    PROPERTIES,
    Action,
    Digest,
    IpeOperation,
    Policy,
    Property,
    Rule,
    Version,
)

_SOURCE: Final = "security/ipe/policy_parser.c"
_BLANKS: Final = re.compile(rb"[ \t]+")
_LINE_ENDS: Final = re.compile(rb"\r\n|[\n\r]")
_SPACES: Final = b" \t\n\v\f\r\xa0"
"""What the kernel's ``isspace`` takes for white space (lib/ctype.c)."""

_U64_MAX: Final = (1 << 64) - 1
_U64_DIGITS: Final = 20
_U16_MAX: Final = 0xFFFF
_VERSION_PARTS: Final = 3

_OPERATIONS: Final = {f"op={each.value}".encode(): each for each in IpeOperation}
_ACTIONS: Final = {f"action={each.value}".encode(): each for each in Action}
_WORDS: Final = {
    f"{name}={word}".encode(): Property(name, word)
    for name, words in PROPERTIES.items()
    for word in words
}
_DIGESTS: Final = {f"{name}=".encode(): name for name, words in PROPERTIES.items() if not words}


class PolicyError(KernelError):
    """A text that the kernel does not take for a policy.

    Attributes:
        line: where, from 1; 0 if it is about the whole text.
    """

    exit_status = 3

    def __init__(
        self, errno: int, message: str, function: str, *, line: int = 0, hint: str = ""
    ) -> None:
        super().__init__(errno, message, rule=f"{_SOURCE} {function}: {message}", hint=hint)
        self.line = line
        if line:
            self.where = f"line {line}"

    @property
    def reason(self) -> str:
        """The line, the errno and the message, without the file and the hint."""
        place = f"line {self.line}: " if self.line else ""
        return f"{place}-{self.errno_name}: {self.message}"

    def __str__(self) -> str:
        text = f"-{self.errno_name}: {self.message}"
        text = f"{self.where}: {text}" if self.where else text
        return f"{text} ({self.hint})" if self.hint else text


def parse_policy(text: bytes) -> Policy:
    """Parse a policy.

    Raises:
        PolicyError: EBADMSG for what does not follow the grammar, ERANGE for a version out of
            range, EINVAL for one that is no number and for a digest that is not hex.
    """
    if not text:
        raise PolicyError(EBADMSG, "the text is empty", "ipe_parse_policy")
    header: tuple[str, Version] | None = None
    body = _Body()
    for number, line in _lines(text):
        if header is None:
            header = _header(line, number)
        else:
            body.add(line, number)
    if header is None:
        raise PolicyError(EBADMSG, "there is no line with name and version", "ipe_parse_policy")
    body.check_defaults()
    name, version = header
    return Policy(
        name=name,
        version=version,
        rules=tuple(body.rules),
        defaults=MappingProxyType(body.defaults),
        default=body.default,
        text=text,
    )


def _lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    r"""Yield the lines that hold something, without comments, and their numbers.

    To the kernel ``\r\n`` ends two lines, one of them empty; to people it is one.
    """
    for number, line in enumerate(_LINE_ENDS.split(text.partition(b"\0")[0]), 1):
        kept = line.partition(b"#")[0].rstrip(_SPACES)
        if kept:
            yield number, kept


def _tokens(line: bytes) -> list[bytes]:
    """Return the tokens of a line; the last one is never empty, as white space was cut off."""
    return [token for token in _BLANKS.split(line) if token]


def _header(line: bytes, number: int) -> tuple[str, Version]:
    """Parse the first line (``parse_header``)."""
    hint = "the first line is: policy_name=NAME policy_version=A.B.C"
    found: list[bytes] = []
    version = None
    for token in _tokens(line):
        if len(found) == len(_HEADER):
            raise PolicyError(
                EBADMSG, f"{_shown(token)} after the version", "parse_header", line=number
            )
        prefix = _HEADER[len(found)]
        value = token[len(prefix) :]
        if not token.startswith(prefix) or not value:
            message = f"{_shown(token)} is not {prefix.decode()}..."
            raise PolicyError(EBADMSG, message, "parse_header", line=number, hint=hint)
        if found:
            version = _version(value, number)
        found.append(value)
    if version is None:
        raise PolicyError(
            EBADMSG, "there is no policy_version", "parse_header", line=number, hint=hint
        )
    return _text(found[0]), version


_HEADER: Final = (b"policy_name=", b"policy_version=")


def _version(text: bytes, line: int) -> Version:
    """Parse a version (``parse_version``)."""

    def fail(number: int, message: str) -> PolicyError:
        hint = f"three numbers of 0 to {_U16_MAX} with dots in between"
        return PolicyError(number, message, "parse_version", line=line, hint=hint)

    numbers: list[int] = []
    for part in text.split(b"."):
        if len(numbers) == _VERSION_PARTS:
            raise fail(EBADMSG, f"the version {_shown(text)} has more than three numbers")
        value = _unsigned(part)
        if value is None:
            raise fail(EINVAL, f"{_shown(part)} in the version is no number")
        if value > _U16_MAX:
            raise fail(ERANGE, f"{_shown(part)} in the version is out of range")
        numbers.append(value)
    if len(numbers) != _VERSION_PARTS:
        raise fail(EBADMSG, f"the version {_shown(text)} has fewer than three numbers")
    return Version(*numbers)


def _unsigned(text: bytes) -> int | None:
    """Return a decimal number, more than 64 bits as one that is just too large, or ``None``.

    Source: lib/kstrtox.c ``kstrtou16``: a plus sign may precede it, and a number of more than 64
    bits is out of range whatever follows it.
    """
    digits = text.removeprefix(b"+")
    leading = digits[: len(digits) - len(digits.lstrip(b"0123456789"))]
    significant = leading.lstrip(b"0")
    if len(significant) > _U64_DIGITS or int(significant or b"0") > _U64_MAX:
        return _U64_MAX + 1
    return int(significant or b"0") if leading and leading == digits else None


@dataclass(slots=True)
class _Body:
    """The lines after the first, as far as they were parsed."""

    rules: list[Rule] = field(default_factory=list)
    defaults: dict[IpeOperation, Action] = field(default_factory=dict)
    default: Action | None = None

    def add(self, line: bytes, number: int) -> None:
        """Parse one line (``parse_rule``)."""

        def fail(message: str, hint: str = "") -> PolicyError:
            return PolicyError(EBADMSG, message, "parse_rule", line=number, hint=hint)

        *tokens, last = _tokens(line)
        is_default = bool(tokens) and tokens[0] == b"DEFAULT"
        operation = None
        properties: list[Property] = []
        for token in tokens[1:] if is_default else tokens:
            if operation is not None:
                properties.append(_property(token, number))
                continue
            operation = _OPERATIONS.get(token)
            if operation is None:
                raise fail(f"{_shown(token)} is no operation", _operation_hint(token))
        action = _ACTIONS.get(last)
        if action is None:
            raise fail(f"{_shown(last)} is no action", "a line ends in action=ALLOW or action=DENY")
        if not is_default:
            if operation is None:
                raise fail("a rule without an operation", "a rule begins with op=OPERATION")
            self.rules.append(Rule(operation, tuple(properties), action, number))
        elif properties:
            raise fail("a DEFAULT with properties", "a rule does not begin with DEFAULT")
        elif operation is None:
            if self.default is not None:
                raise fail("a second global DEFAULT")
            self.default = action
        elif operation in self.defaults:
            raise fail(f"a second DEFAULT for {operation.value}")
        else:
            self.defaults[operation] = action

    def check_defaults(self) -> None:
        """Refuse a policy that leaves an operation open (``validate_policy``)."""
        missing = [each.value for each in IpeOperation if each not in self.defaults]
        if self.default is None and missing:
            raise PolicyError(
                EBADMSG,
                f"no default for {', '.join(missing)}",
                "validate_policy",
                hint="add a line: DEFAULT action=ALLOW, or action=DENY",
            )


def _property(token: bytes, line: int) -> Property:
    """Parse a property (``parse_property``)."""
    known = _WORDS.get(token)
    if known is not None:
        return known
    prefix, equals, value = token.partition(b"=")
    name = _DIGESTS.get(prefix + equals)
    if name is None or not value:
        hint = _property_hint(prefix)
        message = f"{_shown(token)} is no property"
        raise PolicyError(EBADMSG, message, "parse_property", line=line, hint=hint)
    return Property(name, _digest(value, line))


def _digest(text: bytes, line: int) -> Digest:
    """Parse ``ALGORITHM:HEX`` (security/ipe/digest.c ``ipe_digest_parse``).

    The kernel knows no algorithm by name here, and takes an empty one and an empty digest.
    """
    algorithm, colon, digits = text.partition(b":")
    if not colon:
        raise PolicyError(
            EBADMSG, f"{_shown(text)} is not ALGORITHM:HEX", "parse_property", line=line
        )
    if len(digits) % 2 or not re.fullmatch(rb"[0-9A-Fa-f]*", digits):
        raise PolicyError(EINVAL, f"{_shown(digits)} is not hex", "parse_property", line=line)
    return Digest(_text(algorithm), bytes.fromhex(digits.decode()))


def _operation_hint(token: bytes) -> str:
    if token.startswith(b"op="):
        return f"operations: {', '.join(each.value for each in IpeOperation)}"
    return "a rule begins with op=OPERATION"


def _property_hint(name: bytes) -> str:
    known = _text(name)
    if known not in PROPERTIES:
        return f"properties: {', '.join(PROPERTIES)}; a line ends in its only action"
    words = " or ".join(PROPERTIES[known])
    return f"{known} is {words}" if words else f"{known} is ALGORITHM:HEX"


def _text(data: bytes) -> str:
    """Return bytes as text; what is no UTF-8 stays apart from everything else."""
    return data.decode("utf-8", "surrogateescape")


_SHOWN_LIMIT: Final = 60


def _shown(token: bytes) -> str:
    """Return a token as a message shows it."""
    cut = token[:_SHOWN_LIMIT]
    return repr(cut.decode("utf-8", "backslashreplace") + ("..." if len(token) > len(cut) else ""))
