r"""Read BER as kernels do: one walker over a grammar that is data.

The kernel's decoder (``lib/asn1_decoder.c``) runs a program that ``scripts/asn1_compiler.c`` makes
of a grammar, and calls actions while it walks. Much follows from that, and trust depends on it:

- an action's refusal comes before any error of structure further on;
- lengths may be indefinite or longer than needed, up to two bytes (``82``); longer ones and long
  tags are errors, and every error of structure is -EBADMSG;
- where a constructed type is asked for, the tag's constructed bit does not matter;
- a SEQUENCE OF or SET OF holds at least one element, and SET OF has no order;
- an ANY is skipped over, and what stands behind the outermost element is not looked at;
- a CHOICE at the end of its container may be missing, if the element before it was found: there is
  then nothing that could be the wrong tag.

The kernel's limits of ten nested containers and ten subroutines are left out: no grammar of
`bpfseal.signing.grammar` nests that deeply, and none is recursive.

Example:
    >>> class Numbers:
    ...     found: list[bytes] = []
    ...     def note(self, item: Item) -> None:
    ...         self.found.append(item.value)
    >>> grammar = Container(0x30, (Noted(Primitive(0x02), "note"),), repeats=True)
    >>> walk(grammar, bytes.fromhex("3080 020101 020102 0000"), Numbers())
    True
    >>> Numbers.found
    [b'\x01', b'\x02']
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final, TypeAlias

from bpfseal.errors import VerificationError, errno_name

MAX_SIZE: Final = 65535
"""Bytes of the largest message that the kernel's decoder looks at."""

_CONSTRUCTED: Final = 0x20
_LONG_TAG: Final = 0x1F
_INDEFINITE: Final = 0x80
_LONGEST_SKIPPED_LENGTH: Final = 7
"""Bytes of a length inside a skipped element: ``sizeof(size_t) - 1``."""


class RefusedError(VerificationError):
    """Something that a kernel refuses.

    Attributes:
        errno: the positive errno that the kernel answers with, for example 74 for ``EBADMSG``.
        reason: what is wrong, without the errno's name, which `message` begins with.
    """

    def __init__(self, errno: int, reason: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"-{errno_name(errno)}: {reason}", where=where, hint=hint)
        self.errno = errno
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Item:
    """What an action is told: one element, or the last one that was read.

    Attributes:
        data: the whole message.
        tag: the tag as it was found, with class and constructed bit; 0 for the end of a container.
        start: the offset of the contents.
        size: bytes of the contents; a skipped element of indefinite length counts its end mark too.
        header: bytes of tag and length.
    """

    data: bytes
    tag: int
    start: int
    size: int
    header: int

    @property
    def value(self) -> bytes:
        """The contents."""
        return self.data[self.start : self.start + self.size]

    @property
    def encoded(self) -> bytes:
        """The element with its header."""
        return self.data[self.start - self.header : self.start + self.size]


@dataclass(frozen=True, slots=True)
class Primitive:
    """An element whose contents are not looked into; `action` is told of it."""

    tag: int
    action: str = ""


@dataclass(frozen=True, slots=True)
class Anything:
    """``ANY``."""

    action: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """``SEQUENCE``, ``SEQUENCE OF``, ``SET OF``, or an explicit tag.

    Attributes:
        tag: with the constructed bit.
        fields: the elements, in order; one that repeats is the only one.
        repeats: it is ``OF``.
        shared: the type is used in several places, which makes it a subroutine: its end counts as a
            match for the CHOICE that follows.
        action: told of the contents when the end is reached.
    """

    tag: int
    fields: tuple[Element, ...]
    repeats: bool = False
    shared: bool = False
    action: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """``CHOICE``.

    Attributes:
        alternatives: what may be there.
        is_wider: the standard has the first alternative only.
    """

    alternatives: tuple[Element, ...]
    is_wider: bool = False


@dataclass(frozen=True, slots=True)
class Noted:
    """A reference to a named type; `action` is told of what was read last."""

    element: Element
    action: str


@dataclass(frozen=True, slots=True)
class Implicit:
    """``[n] IMPLICIT``: another tag for an element."""

    tag: int
    element: Primitive | Container | Noted


@dataclass(frozen=True, slots=True)
class Optional:
    """``OPTIONAL`` or ``DEFAULT``."""

    element: Element


Element: TypeAlias = Primitive | Anything | Container | Choice | Noted | Implicit | Optional


def walk(grammar: Element, data: bytes, actions: object) -> bool:
    """Read a message and call actions on the way.

    Args:
        grammar: what the message should be.
        data: the message; what stands behind it is not looked at.
        actions: an object whose methods bear the names that the grammar's actions have; each takes
            an `Item`.

    Returns:
        Whether every tag was as the standard has it.

    Raises:
        RefusedError: ``EBADMSG`` for another structure, ``EMSGSIZE`` for more than `MAX_SIZE`
            bytes, or what an action raises.
    """
    if len(data) > MAX_SIZE:
        raise RefusedError(errno.EMSGSIZE, f"{len(data)} bytes, more than {MAX_SIZE}")
    walker = _Walker(data, actions)
    walker.element(grammar)
    return walker.is_standard


def end_of(data: bytes, at: int = 0) -> int:
    """Return the offset behind an element that `walk` has read without an error.

    Raises:
        RefusedError: it does not end inside of the data.
    """
    walker = _Walker(data, None)
    walker.at = at
    walker.element(Anything())
    return walker.at


class _Walker:
    """The state of the decoder: ``asn1_ber_decoder``."""

    def __init__(self, data: bytes, actions: object) -> None:
        self._data = data
        self._actions = actions
        self.at = 0
        self._end = len(data)
        self._tag = self._start = self._size = self._header = 0
        self._matched = False  # FLAG_MATCHED
        self._last_matched = False  # FLAG_LAST_MATCHED
        self._is_indefinite = False
        self.is_standard = True

    def element(
        self,
        element: Element,
        tag: int | None = None,
        *,
        optional: bool = False,
        alternative: bool = False,
    ) -> None:
        """Read one element.

        Args:
            element: what it should be.
            tag: the tag that it has instead of its own.
            optional: it may be missing (``_OR_SKIP``).
            alternative: an earlier alternative of the same CHOICE may have been there (``COND_``).
        """
        if isinstance(element, Primitive):
            found = self._match(element.tag if tag is None else tag, optional, alternative)
            if found:
                self._leaf(element.action)
        elif isinstance(element, Container):
            self._container(element, tag, optional, alternative)
        elif isinstance(element, Noted):
            self.element(element.element, tag, optional=optional, alternative=alternative)
            if not optional or self._last_matched:  # ASN1_OP_ACT, ASN1_OP_MAYBE_ACT
                self._act(element.action)
        elif isinstance(element, Choice):
            for position, each in enumerate(element.alternatives):
                before = self.at
                self.element(each, optional=True, alternative=position > 0)
                if position and element.is_wider and self.at != before:
                    self.is_standard = False
            if not optional and not self._matched:  # ASN1_OP_COND_FAIL
                raise self._error("unexpected tag")
        elif isinstance(element, Implicit):
            self.element(element.element, element.tag, optional=optional, alternative=alternative)
        elif isinstance(element, Optional):
            self.element(element.element, optional=True)
        elif self._match(None, optional, alternative):
            self._leaf(element.action)

    def _match(self, wanted: int | None, optional: bool, alternative: bool) -> bool:
        """Read a header if it has the tag that is wanted."""
        if (alternative and self._matched) or (optional and self.at == self._end):
            self._last_matched = False
            return False
        self._matched = self._last_matched = self._is_indefinite = False
        data = self._data
        if self._end - self.at < 2:
            raise self._error("it ends too early")
        self._tag = tag = data[self.at]
        if tag & _LONG_TAG == _LONG_TAG:
            raise self._error("long tag")
        if wanted is not None and (wanted ^ tag) & ~(wanted & _CONSTRUCTED):
            if optional:
                return False
            raise self._error("unexpected tag")
        self._matched = True
        self.is_standard &= wanted in (None, tag)
        self._header, size = 2, data[self.at + 1]
        self.at += 2
        if size == _INDEFINITE:
            if not tag & _CONSTRUCTED:
                raise self._error("indefinite length of a primitive element")
            self._is_indefinite, size = True, 0
            if self._end - self.at < 2:
                raise self._error("it ends too early")
        elif size > _INDEFINITE:
            count = size - _INDEFINITE
            if count > 2:
                raise self._error("length of more than two bytes")
            size = int.from_bytes(data[self.at : min(self.at + count, self._end)], "big")
            if count > self._end - self.at:
                raise self._error("it ends too early")
            self._header += count
            self.at += count
        if size > self._end - self.at:
            raise self._error("it ends too early")
        self._start, self._size = self.at, size
        return True

    def _leaf(self, action: str) -> None:
        if self._is_indefinite:
            self._size = self._skip_indefinite() - self.at
        if action:
            self._act(action)
        self.at = self._start + self._size

    def _container(
        self, element: Container, tag: int | None, optional: bool, alternative: bool
    ) -> None:
        if not self._match(element.tag if tag is None else tag, optional, alternative):
            return
        start, header, outer = self._start, self._header, self._end
        is_indefinite = self._is_indefinite
        if not is_indefinite:
            self._end = self._start + self._size
        while True:
            for field in element.fields:
                self.element(field)
            if not (element.repeats and self._has_more(is_indefinite)):
                break
        size = self._close(start, is_indefinite)
        self._end = outer
        self._start, self._header, self._size = start, header, size
        if element.action:
            self._act(element.action, tag=0)
        if element.shared or optional:  # it is a subroutine: ASN1_OP_RETURN
            self._matched = self._last_matched = True

    def _has_more(self, is_indefinite: bool) -> bool:
        if not is_indefinite:
            return self.at < self._end
        return self._end - self.at >= 2 and self._data[self.at] != 0

    def _close(self, start: int, is_indefinite: bool) -> int:
        """Leave a container, and return the size of its contents."""
        if not is_indefinite:
            if self.at != self._end:
                raise self._error("wrong length of a container")
            return self._end - start
        if self._end - self.at < 2:
            raise self._error("it ends too early")
        if self._data[self.at] or self._data[self.at + 1]:
            raise self._error("missing end of an indefinite length")
        self.at += 2
        return self.at - start - 2

    def _skip_indefinite(self) -> int:
        """Return the offset behind the end mark (``asn1_find_indefinite_length``)."""
        data, at, end, level = self._data, self.at, self._end, 1
        while level:
            if end - at < 2:
                raise self._error("missing end of an indefinite length")
            tag = data[at]
            at += 1
            if tag == 0:
                if data[at]:
                    raise self._error("missing end of an indefinite length")
                at += 1
                level -= 1
                continue
            if tag & _LONG_TAG == _LONG_TAG:
                more = True
                while more:
                    if end - at < 2:
                        raise self._error("it ends too early")
                    more = bool(data[at] & 0x80)
                    at += 1
            size = data[at]
            at += 1
            if size == _INDEFINITE:
                if not tag & _CONSTRUCTED:
                    raise self._error("indefinite length of a primitive element")
                level += 1
                continue
            if size > _INDEFINITE:
                count = size - _INDEFINITE
                if count > _LONGEST_SKIPPED_LENGTH or count > end - at:
                    raise self._error("it ends too early")
                size = int.from_bytes(data[at : at + count], "big")
                at += count
            if size > end - at:
                raise self._error("it ends too early")
            at += size
        return at

    def _act(self, action: str, tag: int | None = None) -> None:
        found = self._tag if tag is None else tag
        item = Item(self._data, found, self._start, self._size, self._header)
        getattr(self._actions, action)(item)

    def _error(self, reason: str) -> RefusedError:
        return RefusedError(errno.EBADMSG, f"{reason} at byte {self.at}")
