"""From a `BpfObject` to a `Loader`: instructions, metadata and loader BTF."""

from bpfseal.loader.generator import generate

__all__ = ["generate"]
