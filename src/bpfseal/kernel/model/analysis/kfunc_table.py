"""The types of the arguments of the kfuncs that the model knows.

Example:
    >>> ARGUMENTS["bpf_loader_verify_metadata"][0]
    <KfuncArgument.MAP: 'map'>
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from bpfseal.loader.checks import VERIFY_KFUNC


class KfuncArgument(Enum):
    """Types of arguments (``enum kfunc_ptr_arg_type`` in kernel/bpf/verifier.c)."""

    MAP = "map"
    MEMORY = "memory whose size is the next argument"
    SIZE = "size of the memory before"
    AUX = "what the verifier supplies (`__ign`)"


ARGUMENTS: Final[dict[str, tuple[KfuncArgument, ...]]] = {
    VERIFY_KFUNC: (
        KfuncArgument.MAP,
        KfuncArgument.MEMORY,
        KfuncArgument.SIZE,
        KfuncArgument.AUX,
    ),
}
"""By the name of the kfunc."""
