r"""Byte strings out of a C light skeleton (``.lskel.h``) of the reference tool.

The header holds each blob as a C string of hex escapes:

    static const char opts_insn[] __attribute__((__aligned__(8))) = "\
    \xbf\x16\0\0...";

Example:
    >>> declaration = "static const char opts_sig[] __attribute__((__aligned__(8)))"
    >>> read_arrays(declaration + r' = "\x30\0";')
    {'opts_sig': b'0\x00'}
"""

from __future__ import annotations

import re

from bpfseal.errors import InputError

_ARRAY = re.compile(
    r"static const char (\w+)\[\] __attribute__\(\(__aligned__\(8\)\)\) = \"((?:\\\n)?[^\"]*)\";"
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(0)|\n)|(\s+)|(.)", re.DOTALL)


def read_arrays(text: str) -> dict[str, bytes]:
    """Return the byte strings of the header's load function, by name.

    Names that occur several times (``data``, the initial contents of maps) keep the last one.

    Raises:
        InputError: a string holds something else than hex escapes.
    """
    arrays = {}
    for match in _ARRAY.finditer(text):
        name, body = match.groups()
        data = bytearray()
        for escape in _ESCAPE.finditer(body):
            digits, zero, _space, other = escape.groups()
            if other is not None:
                raise InputError(f"'{other}' in {name} is no hex escape", where="light skeleton")
            if digits or zero:
                data.append(int(digits or "0", 16))
        arrays[name] = bytes(data)
    return arrays
