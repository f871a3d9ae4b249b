"""From a `BpfObject` to a `Loader`: instructions, metadata and loader BTF.

Both functions are imported when one is first asked for: whoever only loads a finished loader, on a
small host or in an initramfs, needs nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpfseal.loader.generator import generate, generate_all

__all__ = ["generate", "generate_all"]


def __getattr__(name: str) -> Any:
    """Import the generator on first use (PEP 562)."""
    if name in __all__:
        from bpfseal.loader import generator

        return getattr(generator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
