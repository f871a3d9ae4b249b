"""How the model says no: a `KernelError` with the errno and the rule behind it.

Example:
    >>> refusal(1, "kernel/bpf/syscall.c map_freeze", "the map is frozen already").rule
    'kernel/bpf/syscall.c map_freeze: the map is frozen already'
"""

from __future__ import annotations

from typing import Final

from bpfseal.errors import KernelError

ENOTSUPP: Final = 524
"""An errno that exists inside Linux only (include/linux/errno.h)."""


def refusal(number: int, source: str, message: str, *, log: str = "") -> KernelError:
    """Return the error of a refused call.

    Args:
        number: the positive errno.
        source: the kernel file and function that hold the rule.
        message: the rule that was broken, one line.
        log: what the verifier writes in its log, where it writes something.
    """
    return KernelError(number, log or message, log=log, rule=f"{source}: {message}")
