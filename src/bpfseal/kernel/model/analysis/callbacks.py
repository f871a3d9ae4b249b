"""Functions of a program that a helper calls: what they get, and what they may return.

The helper may call its function any number of times. So the path that a call begins comes back to
the call with what the function has changed, and the call is looked at again until that is nothing
new; beside it goes the path on which the helper returns.

Source: ``push_callback_call``, ``set_loop_callback_state`` and ``prepare_func_exit`` in
kernel/bpf/verifier.c; ``map_set_for_each_callback_args`` there.

Example:
    >>> waiting = enter(env, index, Helper.LOOP)
    >>> waiting.frame.is_callback
    True
"""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL
from typing import Final

from bpfseal.bpf.uapi import Helper
from bpfseal.kernel.model.analysis import precision, scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.scalar import S64_MAX, S64_MIN, Scalar
from bpfseal.kernel.model.analysis.state import Frame, State
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value

_LEAST: Final = 0
_LARGEST: Final = 1
"""A callback returns 0 to go on and 1 to stop."""


def enter(env: Env, index: int, number: int) -> State | None:
    """Return the state in which the function begins, ``None`` if it was looked at often enough.

    Args:
        env: the program, whose registers still hold the arguments of the call.
        index: the call.
        number: the helper.

    Raises:
        Refused: E2BIG, the call is too deep; EFAULT for a pointer as the number of rounds.
    """
    caller = env.state.frame
    arguments = caller.registers
    if number == Helper.LOOP:
        precision.mark_register(env, 1)
        count = arguments[1]
        if not isinstance(count, Scalar):
            message = "verifier bug: backtracking misuse"
            raise env.refuse(EFAULT, "mark_chain_precision", message)
        if caller.callback_depth >= count.umax:
            caller.callback_depth = 0
            return None
    env.check_call_depth()
    function = arguments[2]
    assert isinstance(function, Pointer)  # noqa: S101 - checked as an argument
    waiting = env.state.copy()
    waiting.frame.callback_depth += 1
    waiting.unrolls += 1
    caller.callback_depth = 0
    entered = Frame(len(waiting.frames), index, function.target, is_callback=True)
    entered.registers[1:6] = _arguments(number, arguments)
    waiting.frames.append(entered)
    return waiting


def _arguments(number: int, given: list[Value]) -> list[Value]:
    """Return r1 to r5 of the function."""
    if number == Helper.LOOP:
        return [scalar.UNKNOWN, given[3], None, None, None]
    named = given[1]
    assert isinstance(named, Pointer)  # noqa: S101 - checked as an argument
    key = Pointer(PointerKind.MAP_KEY, map=named.map)
    value = Pointer(PointerKind.MAP_VALUE, map=named.map)
    return [named, key, value, given[3], None]


def check_result(env: Env, result: Value) -> None:
    """Check what a function gives back to the helper.

    Raises:
        Refused: EACCES for no number, EINVAL for one that is neither 0 nor 1.
    """
    function = "prepare_func_exit"
    if not isinstance(result, Scalar):
        raise env.refuse(EACCES, function, "R0 not a scalar value")
    if result.smin >= _LEAST and result.smax <= _LARGEST:
        return
    known = "".join(
        (
            f" smin={result.smin}" if result.smin > S64_MIN else "",
            f" smax={result.smax}" if result.smax < S64_MAX else "",
        )
    )
    message = (
        f"At callback return the register R0 has{known or ' unknown scalar value'}"
        f" should have been in [{_LEAST}, {_LARGEST}]"
    )
    raise env.refuse(EINVAL, function, message)
