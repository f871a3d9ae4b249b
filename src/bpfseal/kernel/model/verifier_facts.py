"""What the verifiers of Linux releases do otherwise, as data: one `VerifierFacts` for each.

What is the same in all of them is in `bpfseal.kernel.model.analysis`. Measured means: the same
programs were loaded on 6.12.117, 6.17.13, 6.18.44, 6.19.14, 7.0.13, 7.1.13, 7.2.12 and 7.3.4
(``tests/isa/measured.json.gz`` has them), and the answers change with the release named.

Example:
    >>> LINUX_7_2.max_call_frames, LINUX_7_1.max_call_frames
    (16, 8)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class VerifierFacts:
    """The facts of one release.

    Attributes:
        has_ordered_atomics: load-acquire and store-release, and with them atomics of one byte and
            of two are known insns.
        checks_may_goto_with_paths: the fields of a may_goto count where a path leads only.
        elides_null_checks: a lookup with a constant key that the array has is never null.
        tracks_negation: what is known of a number is known of its negative.
        multiplies_signs: ranges of products of numbers that may be negative.
        swaps_bytes: known bits go through swaps of bytes.
        divides_ranges: ranges of quotients and remainders by a constant.
        knows_itself: a register compared with itself tells which way a jump goes.
        proves_by_any_pointer: a pointer that equals any pointer that is not null is not null; else
            one whose offset is bounded, and that leads neither to the stack nor to the context.
        null_by_register: a comparison with a register that is zero is a null check.
        folds_offsets: the constant part of a pointer's offset is a part of its range.
        moves_context: the context may be accessed at a variable offset, and without alignment.
        max_call_frames: the most functions that may be active at once.
        names_leaks_at_exit: a reference that is left at the end has a line on the insn behind it.
        names_helper_access: the log says whether a helper reads or writes a stack.
        no_prog_array_log: what the log says of a tail call through another map.
        prints_liveness: states in the log show which registers were read and written.
        shows_live_registers: the log of all paths begins with the registers that are in use.
        clears_dead: what no insn can read is forgotten when a state is remembered.
        has_const_arguments: a size that must be constant is refused as an argument of kfuncs is.
        counts_rounds_in_numbers: ``bpf_loop`` wants a number of rounds; else a pointer there is a
            fault of the verifier.
        advises: the log ends with a suggestion.
    """

    has_ordered_atomics: bool = True
    checks_may_goto_with_paths: bool = False
    elides_null_checks: bool = True
    tracks_negation: bool = True
    multiplies_signs: bool = True
    swaps_bytes: bool = True
    divides_ranges: bool = True
    knows_itself: bool = True
    proves_by_any_pointer: bool = False
    null_by_register: bool = True
    folds_offsets: bool = True
    moves_context: bool = True
    max_call_frames: int = 16
    names_leaks_at_exit: bool = True
    names_helper_access: bool = True
    no_prog_array_log: str = "expected prog array map for tail call"
    prints_liveness: bool = False
    shows_live_registers: bool = True
    clears_dead: bool = True
    has_const_arguments: bool = False
    counts_rounds_in_numbers: bool = True
    advises: bool = False


LINUX_7_2: Final = VerifierFacts()
LINUX_7_3: Final = replace(LINUX_7_2, has_const_arguments=True, advises=True)
LINUX_7_1: Final = replace(LINUX_7_2, max_call_frames=8, proves_by_any_pointer=True)
LINUX_7_0: Final = replace(
    LINUX_7_1,
    null_by_register=False,
    folds_offsets=False,
    moves_context=False,
    clears_dead=False,
    counts_rounds_in_numbers=False,
)
LINUX_6_19: Final = replace(LINUX_7_0, divides_ranges=False)
LINUX_6_18: Final = replace(LINUX_6_19, knows_itself=False)
LINUX_6_17: Final = replace(LINUX_6_18, swaps_bytes=False, prints_liveness=True)
LINUX_6_12: Final = replace(
    LINUX_6_17,
    has_ordered_atomics=False,
    checks_may_goto_with_paths=True,
    elides_null_checks=False,
    tracks_negation=False,
    multiplies_signs=False,
    proves_by_any_pointer=False,
    names_leaks_at_exit=False,
    names_helper_access=False,
    shows_live_registers=False,
    counts_rounds_in_numbers=True,
    no_prog_array_log="kernel subsystem misconfigured verifier",
)

SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "has_ordered_atomics": "commit 880442305a39 (6.15); measured: EINVAL on 6.12.117",
        "checks_may_goto_with_paths": "kernel/bpf/verifier.c check_cond_jmp_op of 6.12.117",
        "elides_null_checks": "commit d2102f2f5d75 (6.14); measured: not on 6.12.117",
        "tracks_negation": "commit aced132599b3 (6.17); measured: not on 6.12.117",
        "multiplies_signs": "commit 9aa0ebde0014 (6.14); measured: not on 6.12.117",
        "swaps_bytes": "measured: on 6.18.44, not on 6.17.13",
        "divides_ranges": "measured: on 7.0.13, not on 6.19.14",
        "knows_itself": "measured: on 6.19.14, not on 6.18.44",
        "proves_by_any_pointer": "measured: 6.17.13 to 7.1.13; kernel/bpf/verifier.c"
        " check_cond_jmp_op and reg_not_null of 6.12.117 and 7.2.12 ask for more",
        "null_by_register": "measured: on 7.1.13, not on 7.0.13",
        "folds_offsets": "measured: on 7.1.13, not on 7.0.13; struct bpf_reg_state has no off",
        "moves_context": "measured: on 7.1.13, not on 7.0.13; is_var_ctx_off_allowed",
        "max_call_frames": "include/linux/bpf_verifier.h MAX_CALL_FRAMES; measured: 8 on 7.1.13, 16"
        " on 7.2.12",
        "names_leaks_at_exit": "measured: on 6.17.13, not on 6.12.117",
        "names_helper_access": "kernel/bpf/verifier.c check_stack_access_within_bounds; measured:"
        " on 6.17.13, not on 6.12.117",
        "no_prog_array_log": "kernel/bpf/verifier.c record_func_key; measured: another text on"
        " 6.12.117",
        "prints_liveness": "measured: up to 6.17.13",
        "shows_live_registers": "commit 14c8552db644 (6.15)",
        "clears_dead": "kernel/bpf/states.c clean_verifier_state; measured: from 7.1.13 on",
        "has_const_arguments": "kernel/bpf/verifier.c process_const_arg of 7.3.4",
        "counts_rounds_in_numbers": "measured: on 6.12.117 and 7.2.12, EFAULT on 7.0.13; taken to"
        " be so from 6.17 to 7.0",
        "advises": "kernel/bpf/diagnostics.c of 7.3.4",
    }
)
"""Where each fact is from, by the name of its attribute."""
