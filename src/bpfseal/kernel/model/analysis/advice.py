"""What Linux 7.3 suggests behind a refusal.

The kernel writes a report there: the category, the reason, the source lines, how the values came
about, and a suggestion, which is the end of the log. The model has the last of these only.

Source: kernel/bpf/diagnostics.c and its callers in kernel/bpf/verifier.c and cfg.c of 7.3.4.

Example:
    >>> advice("R1 !read_ok")
    ['', 'Suggestion:', '  Initialize R1 on every path before this instruction.', '']
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

_WIDTH: Final = 100
_INDENT: Final = "  "
"""BPF_DIAG_TEXT_WIDTH, BPF_DIAG_TEXT_INDENT."""

_BOUNDS: Final = (
    "Add or adjust a bounds check that proves offset + access_size stays within the object."
)
_NULL: Final = (
    "Add a NULL check before the access and dereference the pointer only on the non-NULL path."
)
_POINTER: Final = (
    "Preserve a pointer-valued register where needed, or reload and revalidate the pointer after"
    " scalar arithmetic, helper calls, or other operations that can invalidate it."
)
_CLAMP: Final = "Clamp or bounds-check the scalar offset before applying it to the pointer."
_WITHIN: Final = (
    "Tighten the scalar bounds before the arithmetic so the resulting pointer remains within the"
    " allowed range."
)
_INITIALISED: Final = (
    "Initialize every byte in the stack range before reading it, adjust the offset and size so the"
    " read covers only initialized bytes, or load with CAP_PERFMON if uninitialized stack reads are"
    " intended."
)
_LENGTH: Final = (
    "Constrain the memory size to a non-negative value smaller than BPF_MAX_VAR_SIZ before this"
    " call."
)

_ADVICE: Final = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"R(\d+) !read_ok$", r"Initialize R\1 on every path before this instruction."),
        (
            r"jump out of range from insn",
            "Keep branch targets within the same subprogram, or use an explicit subprogram call.",
        ),
        (
            r"last insn is not an exit or jmp$",
            "End each subprogram with an exit or an explicit jump that keeps control flow inside"
            " the subprogram.",
        ),
        (
            r"recursive call from ",
            "Rewrite the recursion as an explicit bounded loop, or split the logic so subprogram"
            " calls do not form a cycle.",
        ),
        (
            r"unreachable insn ",
            "Remove the unreachable instruction or add valid control flow that reaches it.",
        ),
        (
            r"jump into the middle of ldimm64",
            "Target the first instruction of the ldimm64 pair, or restructure the jump target.",
        ),
        (
            r"attempt to corrupt spilled pointer on stack$",
            "Write the full 8-byte spilled pointer slot, or use a separate stack slot for scalar"
            " data before overwriting only part of it.",
        ),
        (r"invalid read from stack (R\d+ )?off \S+\+\d+ size ", _INITIALISED),
        (
            r"variable offset stack pointer cannot be passed into helper",
            "Use a fixed stack offset for helper memory arguments, or copy the needed bytes into a"
            " fixed stack slot first.",
        ),
        (r"R\d+ min value is negative, either use unsigned index", _BOUNDS),
        (r"R\d+ (min|max) value is outside of the allowed memory range$", _BOUNDS),
        (r"R\d+ unbounded memory access, make sure to bounds check", _BOUNDS),
        (
            r"dereference of modified ",
            "Preserve the original pointer in another register, or use only offsets this pointer"
            " type permits before dereferencing it.",
        ),
        (r"R\d+ invalid mem access '.*_or_null'$", _NULL),
        (r"R\d+ invalid mem access '", _POINTER),
        (
            r"R\d+ type=\S+ expected=",
            "Pass a value with one of the accepted pointer or scalar types for this call.",
        ),
        (
            r"release helper \S+ expects referenced",
            "Pass the resource-owning pointer returned by the matching acquire helper, and avoid"
            " calling the release helper after ownership has already been transferred or released.",
        ),
        (
            r"program of this type cannot use helper ",
            "Use a helper allowed for this program type, or move the logic to a compatible program"
            " type.",
        ),
        (
            r"cannot call GPL-restricted function from non-GPL",
            "Use a GPL-compatible license, or replace the helper with one that is available to"
            " non-GPL programs.",
        ),
        (
            r"calling kernel function \S+ is not allowed$",
            "Use a kfunc allowed for this program type and attach point, or change the program"
            " context.",
        ),
        (
            r"Possibly NULL pointer passed to trusted ",
            "Add a NULL check and call the kfunc only on the non-NULL path.",
        ),
        (
            r"Possibly NULL pointer passed to helper ",
            "Add a NULL check and make the call only on the non-NULL path.",
        ),
        (
            r"R\d+ is not a scalar$",
            "Pass an integer scalar value for this argument, not a pointer or resource object.",
        ),
        (r"R\d+ and R\d+ memory, len pair leads to invalid memory access$", _LENGTH),
        (
            r"R\d+ 32-bit pointer arithmetic prohibited$",
            "Use a 64-bit ALU instruction with an allowed, bounded scalar offset.",
        ),
        (
            r"R\d+ pointer arithmetic on \S+ prohibited, null-check it first$",
            "Make sure that a NULL check precedes any arithmetic performed on the pointer.",
        ),
        (
            r"R\d+ pointer arithmetic on \S+ prohibited$",
            "Do not change this pointer's offset; use it only in operations accepted for its kind.",
        ),
        (r"math between \S+ pointer and ", _CLAMP),
        (r"value \S+ makes \S+ pointer be out of bounds$", _CLAMP),
        (r"\S+ pointer offset \S+ is not allowed$", _WITHIN),
        (
            r"R\d+ tried to subtract pointer from scalar$",
            "Keep the pointer as the base; only add or subtract bounded scalars when permitted.",
        ),
        (
            r"R\d+ subtraction from stack pointer prohibited$",
            "Use addition from R10 to form stack addresses within the tracked stack frame.",
        ),
        (
            r"R\d+ bitwise operator \S+ on pointer prohibited$",
            "Do bitwise operations on scalar values, not on pointer-valued registers.",
        ),
        (
            r"R\d+ pointer arithmetic with \S+ operator prohibited$",
            "Use only verifier-supported addition or subtraction with a bounded scalar offset, or"
            " perform this operation on a scalar value.",
        ),
    )
)
"""What the last line of a refusal looks like, and what is suggested then."""

SCRUBBED: Final = (
    "Avoid using the register after it is invalidated, or initialize it again before this"
    " instruction."
)
"""What is suggested for a register that had a value until a call."""


def advice(message: str, *, is_scrubbed: bool = False) -> list[str]:
    """Return the lines of a suggestion, none where the kernel has none.

    Args:
        message: the last line of the refusal.
        is_scrubbed: the register that it is about had a value until a call.
    """
    for pattern, text in _ADVICE:
        found = pattern.match(message)
        if found:
            suggestion = SCRUBBED if is_scrubbed else found.expand(text)
            lines = textwrap.wrap(
                suggestion, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
            return ["", "Suggestion:", *lines, ""]
    return []
