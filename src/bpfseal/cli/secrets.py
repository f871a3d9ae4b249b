r"""What must not be printed: the PIN in a PKCS #11 URI (RFC 7512, section 2.4, ``pin-value``).

Whoever gives such a URI to the wrong option, or misspells it, gets a message that names what was
given. So everything that is printed comes through here, tracebacks too.

Example:
    >>> redacted("pkcs11:token=a?pin-value=1234&module-name=b: cannot be read")
    'pkcs11:token=a?***&module-name=b: cannot be read'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Final

HIDDEN: Final = "***"

_ATTRIBUTE: Final = "pin-value"


def _letter(character: str) -> str:
    """Return a pattern of a character, in either case, percent-encoded or not."""
    codes = {f"%{ord(form):02x}" for form in (character.lower(), character.upper())}
    return f"(?:{'|'.join([character, *sorted(codes)])})"


_NAME: Final = "".join(map(_letter, _ATTRIBUTE)) + rf"\s*{_letter('=')}"
_IN_TEXT: Final = re.compile(rf"{_NAME}[^&\s\"')]*", re.IGNORECASE)
"""The attribute in a text, where nothing tells an odd value's end from what follows."""

_IN_ARGUMENT: Final = re.compile(rf"{_NAME}([^&]*)", re.IGNORECASE)
"""The attribute in a URI that stands for itself."""


_LEAST_PART: Final = 4
"""Characters of the shortest part of a PIN that is hidden where it stands alone."""


def without_value(text: str) -> str:
    """Return an argument without the PIN in it, whatever characters that has."""
    return _IN_ARGUMENT.sub(HIDDEN, text)


class Redactor:
    """Hides PINs: those of texts that it was shown as a whole, and whatever looks like one."""

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._parts: set[str] = set()

    def watch(self, value: object) -> None:
        """Learn the PINs in arguments, variables and settings, which may have blanks and quotes.

        Args:
            value: a text, or names and values with texts in them.
        """
        if isinstance(value, Mapping):
            self.watch([*value.keys(), *value.values()])
        elif isinstance(value, list | tuple):
            for item in value:
                self.watch(item)
        elif isinstance(value, str):
            self._learn(value)

    def _learn(self, text: str) -> None:
        if not _IN_ARGUMENT.search(text):
            return
        # What was taken for the name of a file is printed as one: normalised, and its folders.
        path = PurePath(text)
        for form in (text, *map(str, (path, *path.parents))):
            for found in _IN_ARGUMENT.finditer(form):
                self._values |= {found[0], repr(found[0])[1:-1]}
        for found in _IN_ARGUMENT.finditer(text):
            self._parts |= {part for part in found[1].split("/")[1:] if len(part) >= _LEAST_PART}

    def __call__(self, text: str) -> str:
        """Return the text without PINs."""
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        for part in sorted(self._parts, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", HIDDEN, text)
        return redacted(text)

    def document(self, value: Any) -> Any:
        """Return a JSON value without PINs in its texts."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(name)): self.document(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(item) for item in value]
        return value


def redacted(text: str) -> str:
    """Return the text without what looks like a PIN in a URI."""
    if "pin" not in text.lower() and "%" not in text:
        return text
    return _IN_TEXT.sub(HIDDEN, text)
