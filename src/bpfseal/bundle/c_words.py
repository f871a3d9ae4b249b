"""Words that some compilers read as something else than a name.

Example:
    >>> is_type_name("pid_t"), is_type_name("bool"), is_type_name("friend")
    (True, True, False)
"""

from __future__ import annotations

from typing import Final

from bpfseal.bundle.c_types import is_identifier

_CPP_KEYWORDS: Final = frozenset(
    {"alignas", "alignof", "and", "and_eq", "asm", "bitand", "bitor", "catch", "class", "compl"}
    | {"concept", "const_cast", "consteval", "constexpr", "constinit", "co_await", "co_return"}
    | {"co_yield", "decltype", "delete", "dynamic_cast", "explicit", "export", "friend", "mutable"}
    | {"namespace", "new", "noexcept", "not", "not_eq", "nullptr", "operator", "or", "or_eq"}
    | {"private", "protected", "public", "reinterpret_cast", "requires", "static_assert"}
    | {"static_cast", "template", "this", "thread_local", "throw", "try", "typeid", "typename"}
    | {"typeof", "typeof_unqual", "using", "virtual", "xor", "xor_eq"}
)
"""Names in older C that C++ or C23 read otherwise."""

_TYPES: Final = frozenset({"bool", "wchar_t", "char8_t", "char16_t", "char32_t"})
"""Keywords of C++ or C23 that are types there, too."""

_COMPILER_STEMS: Final = (
    *("alignof", "asm", "attribute", "auto_type", "complex", "const", "declspec", "decltype"),
    *("extension", "imag", "inline", "label", "real", "restrict", "signed", "thread", "typeof"),
    *("typeof_unqual", "underlying_type", "volatile"),
)
_COMPILER_WORDS: Final = frozenset(
    word for stem in _COMPILER_STEMS for word in (f"__{stem}", f"__{stem}__")
)
"""Keywords of GCC and Clang."""


def is_member_name(text: str) -> bool:
    """Whether a text is the name of a member for a C compiler.

    A keyword of C++ is one: C++ compiles no declaration with it.
    """
    return is_identifier(text) and text not in _COMPILER_WORDS


def is_type_name(text: str) -> bool:
    """Whether a text names a type for every compiler that takes it.

    ``friend x;`` is a member in C, and none in C++.
    """
    return text in _TYPES or (is_member_name(text) and text not in _CPP_KEYWORDS)
