"""Untrusted JSON, taken apart field by field.

Each read checks the type and the range; what is wrong is named by its place in the document.

Example:
    >>> fields = parse(b'{"size": 3}', "index.json")
    >>> fields.number("size", high=10)
    3
    >>> fields.finish()
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from bpfseal.bundle.media import MAX_TEXT
from bpfseal.errors import InputError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_MISSING: Final = object()


def canonical(value: Json) -> bytes:
    """Return the one encoding of a JSON value: sorted keys, no white space, UTF-8.

    Raises:
        InputError: a text that UTF-8 cannot hold.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"text that is not valid Unicode: {error.reason}") from None


def parse(data: bytes, where: str) -> Fields:
    """Parse a JSON document whose top is an object.

    Raises:
        InputError: it is not one, it is not in UTF-8 (RFC 8259 section 8.1), or a key occurs twice.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "nested too deeply"
        raise InputError(f"not valid JSON: {reason}", where=where) from None
    return Fields(value, where)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


class Fields:
    """One JSON object. Every key must be taken before `finish`.

    Attributes:
        where: the place of the object, for error messages.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise InputError("not a JSON object", where=where)
        self._rest: dict[str, object] = dict(value)
        self.where = where

    def _take(self, key: str) -> object:
        value = self._rest.pop(key, _MISSING)
        if value is _MISSING:
            raise InputError(f"no field {key!r}", where=self.where)
        return value

    def names(self) -> tuple[str, ...]:
        """The keys that are not yet taken."""
        return tuple(self._rest)

    def text(self, key: str, *, choices: Iterable[str] = ()) -> str:
        """Take a text of printable characters, at most `MAX_TEXT` long.

        Raises:
            InputError: it is missing or something else, or not one of the choices.
        """
        value = self._take(key)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
            raise InputError(f"{key} is not a printable text", where=self.where)
        allowed = tuple(choices)
        if allowed and value not in allowed:
            raise InputError(
                f"{key} is {value!r}, expected {' or '.join(allowed)}", where=self.where
            )
        return value

    def number(self, key: str, *, high: int, low: int = 0) -> int:
        """Take an integer from `low` to `high`.

        Raises:
            InputError: it is missing, something else, or out of range.
        """
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{key} is not a number from {low} to {high}", where=self.where)
        return value

    def boolean(self, key: str) -> bool:
        """Take true or false.

        Raises:
            InputError: it is missing or something else.
        """
        value = self._take(key)
        if not isinstance(value, bool):
            raise InputError(f"{key} is not true or false", where=self.where)
        return value

    def texts(self, key: str) -> dict[str, str]:
        """Take an object whose values are texts, such as annotations; ``{}`` if it is missing.

        Raises:
            InputError: it is something else.
        """
        if key not in self.names():
            return {}
        fields = self.object(key)
        return {name: fields.text(name) for name in fields.names()}

    def object(self, key: str) -> Fields:
        """Take an object.

        Raises:
            InputError: it is missing or something else.
        """
        return Fields(self._take(key), f"{self.where}: {key}")

    def objects(self, key: str, *, limit: int) -> list[Fields]:
        """Take an array of at most `limit` objects.

        Raises:
            InputError: it is missing, something else, or too long.
        """
        value = self._take(key)
        if not isinstance(value, list) or len(value) > limit:
            raise InputError(f"{key} is not an array of at most {limit}", where=self.where)
        return [Fields(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(value)]

    def finish(self) -> None:
        """Refuse what has not been taken.

        Raises:
            InputError: there is a key that this version does not know.
        """
        if self._rest:
            unknown = ", ".join(repr(key)[:40] for key in sorted(self._rest))
            raise InputError(f"unknown field {unknown}", where=self.where)
