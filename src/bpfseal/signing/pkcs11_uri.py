r"""PKCS #11 URIs (RFC 7512): the name of a key on a token.

The attributes of the path say which object is meant; those of the query say how to reach it. What
the path says and this parser does not know is refused, because ignoring it could select another
key; unknown attributes of the query are ignored (RFC 7512, section 2.3).

Example:
    >>> uri = Pkcs11Uri.parse("pkcs11:token=release;id=%01%02?module-path=/usr/lib/softhsm2.so")
    >>> uri.token, uri.id, uri.module_path
    ('release', b'\x01\x02', '/usr/lib/softhsm2.so')
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from bpfseal.errors import UsageError

SCHEME: Final = "pkcs11:"
"""What such a URI begins with, in any case (RFC 3986, section 3.1)."""

MAX_SIZE: Final = 4096
"""Characters of the longest URI that is read."""

_PATH: Final = frozenset(
    ("token", "manufacturer", "serial", "model", "object", "type", "id", "slot-id")
)
_QUERY: Final = frozenset(("module-path", "module-name", "pin-source", "pin-value"))

# RFC 7512, section 2.3: pk11-path-res-avail and pk11-query-res-avail with RFC 3986's unreserved.
_PATH_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_QUERY_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")


def is_pkcs11_uri(text: str) -> bool:
    """Whether a text is such a URI, and not the name of a file."""
    return text[: len(SCHEME)].lower() == SCHEME


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """The attributes of a URI, percent-decoded; None where it does not have one.

    Attributes:
        path: the part before the query, as it was written: fit to be shown.
        token: the token's label.
        manufacturer: the token's manufacturer.
        serial: the token's serial number.
        model: the token's model.
        object: the object's label (CKA_LABEL).
        id: the object's id (CKA_ID).
        slot_id: the slot's number.
        module_path: absolute path of the PKCS #11 library.
        module_name: name of the library, without directory, ``lib`` and ``.so``.
        pin_source: absolute path of the file with the PIN.
        pin_value: the PIN.
    """

    path: str
    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    object: str | None = None
    id: bytes | None = None
    slot_id: int | None = None
    module_path: str | None = None
    module_name: str | None = None
    pin_source: str | None = None
    pin_value: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Pkcs11Uri:
        """Parse a URI that names a private key.

        Raises:
            UsageError: it does not follow RFC 7512, names an attribute twice, or asks for something
                that is not known here.
        """
        if len(text) > MAX_SIZE or not text.isascii() or not text.isprintable():
            raise _refused(f"it is longer than {MAX_SIZE} or has characters that no URI has")
        if not is_pkcs11_uri(text):
            raise _refused(f"it does not begin with {SCHEME}")
        path_text, _, query_text = text[len(SCHEME) :].partition("?")
        path = _attributes(path_text, ";", _PATH_VALUE)
        query = _attributes(query_text, "&", _QUERY_VALUE)
        if unknown := sorted(path.keys() - _PATH):
            raise _refused(f"the attribute {unknown[0]} is not known here")
        if path.get("type", "private") != "private":
            raise _refused(f"it names a {path['type']}, not a private key (type=private)")
        if "pin-source" in query and "pin-value" in query:
            raise _refused("it has both pin-source and pin-value")
        texts = {name: _text(name, value) for name, value in path.items() if name != "id"}
        texts |= {name: _text(name, query[name]) for name in _QUERY & query.keys()}
        _check_module(texts)
        return cls(
            path=SCHEME + path_text,
            token=texts.get("token"),
            manufacturer=texts.get("manufacturer"),
            serial=texts.get("serial"),
            model=texts.get("model"),
            object=texts.get("object"),
            id=unquote_to_bytes(path["id"]) if "id" in path else None,
            slot_id=_slot_id(texts.get("slot-id")),
            module_path=texts.get("module-path"),
            module_name=texts.get("module-name"),
            pin_source=_pin_file(texts.get("pin-source")),
            pin_value=texts.get("pin-value"),
        )


def _refused(reason: str) -> UsageError:
    # The URI itself is not repeated: it may hold a PIN.
    return UsageError(f"PKCS #11 URI: {reason}", hint="for example pkcs11:token=NAME;object=KEY")


def _attributes(text: str, separator: str, value_form: re.Pattern[str]) -> dict[str, str]:
    """Take one component of the URI apart; values stay percent-encoded."""
    found: dict[str, str] = {}
    for attribute in text.split(separator) if text else ():
        name, equals, value = attribute.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise _refused("an attribute that is not of the form NAME=VALUE")
        if name in found:
            raise _refused(f"the attribute {name} is there twice")
        if not value_form.fullmatch(value):
            raise _refused(f"the value of {name} has a character that must be percent-encoded")
        found[name] = value
    return found


def _text(name: str, value: str) -> str:
    try:
        text = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise _refused(f"the value of {name} is not UTF-8") from None
    if "\0" in text:
        raise _refused(f"the value of {name} has a NUL character")
    return text


def _slot_id(text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise _refused("slot-id is not a number")
    return int(text)


def _check_module(texts: dict[str, str]) -> None:
    # RFC 7512, section 2.4: a relative path depends on who reads it.
    if not texts.get("module-path", "/").startswith("/"):
        raise _refused("module-path is not an absolute path")
    if not _NAME.fullmatch(texts.get("module-name", "any")):
        raise _refused("module-name is not a plain name")


def _pin_file(source: str | None) -> str | None:
    """Return the path of a pin-source: a ``file:`` URI (RFC 8089) or an absolute path."""
    if source is None or source.startswith("/"):
        return source
    if source.startswith("|"):
        raise _refused("pin-source names a program; bpfseal runs none, use a file")
    # The value was decoded once, as an attribute; what is left is not encoded again.
    parts = urlsplit(source)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise _refused("pin-source is not a local file")
    path = source.removeprefix("file:").removeprefix("//localhost").removeprefix("//")
    if not path.startswith("/"):
        raise _refused("pin-source is not an absolute path")
    return path
