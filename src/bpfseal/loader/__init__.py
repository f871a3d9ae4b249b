"""From a `BpfObject` to a `Loader`: instructions, metadata and loader BTF.

`generate` is imported when it is first asked for: whoever only loads a finished loader, on a small
host or in an initramfs, needs nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpfseal.loader.generator import generate

__all__ = ["generate"]


def __getattr__(name: str) -> Any:
    """Import the generator on first use (PEP 562)."""
    if name == "generate":
        from bpfseal.loader.generator import generate

        return generate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
