"""X.500 names as text for people (RFC 4514), from whatever a certificate holds.

A name decides nothing here, so nothing is refused: what cannot be read comes out as hex digits.

Example:
    >>> text_of(bytes.fromhex("310b300906035504030c024142"))
    'CN=AB'
"""

from __future__ import annotations

from bpfseal.signing import ber, oids
from bpfseal.signing.ber import Anything, Container, Primitive, RefusedError
from bpfseal.signing.grammar import OID, SEQUENCE, SET

_TYPES = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}
_ENCODINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
"""The encodings of string types, by tag (X.680, section 41)."""

_ESCAPED = frozenset('"+,;<>\\')
_ATTRIBUTE = Container(SEQUENCE, (Primitive(OID, "kind"), Anything("text")), action="attribute")
_NAME = Container(
    SEQUENCE, (Container(SET, (_ATTRIBUTE,), repeats=True, action="relative"),), repeats=True
)


def text_of(name: bytes) -> str:
    """Return a name as text, the most specific part first.

    Args:
        name: the contents of a Name, without its header, in BER.
    """
    reader = _Reader()
    # The length of the header does not matter: an indefinite one fits every size.
    try:
        ber.walk(_NAME, b"\x30\x80" + name + b"\0\0", reader)
    except RefusedError:
        return f"#{name.hex()}"
    return ",".join(reversed(reader.parts))


class _Reader:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._attributes: list[str] = []
        self._kind = ""
        self._text = ""

    def kind(self, item: ber.Item) -> None:
        dotted = oids.decode(item.value)
        self._kind = _TYPES.get(dotted, dotted)

    def text(self, item: ber.Item) -> None:
        try:
            decoded = item.value.decode(_ENCODINGS.get(item.tag, ""))
        except (LookupError, UnicodeDecodeError):
            self._text = f"#{item.encoded.hex()}"
        else:
            self._text = _escaped(decoded)

    def attribute(self, _item: ber.Item) -> None:
        self._attributes.append(f"{self._kind}={self._text}")

    def relative(self, _item: ber.Item) -> None:
        self.parts.append("+".join(self._attributes))
        self._attributes = []


def _escaped(text: str) -> str:
    r"""Escape as RFC 4514 section 2.4 does, and whatever cannot be printed."""
    escaped = "".join(_escape(character) for character in text)
    if escaped.startswith((" ", "#")):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(text) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
