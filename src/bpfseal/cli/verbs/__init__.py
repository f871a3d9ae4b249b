"""The verbs: what each is for, and the module that does it, imported when it is asked for.

Example:
    >>> verb_module("inspect").__name__
    'bpfseal.cli.verbs.inspect'
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from bpfseal.cli.console import Console
    from bpfseal.cli.options import Options

VERBS: Final = {
    "keygen": "make a signing key and a certificate that kernels accept",
    "build": "turn compiled BPF objects into unsigned bundles",
    "sign": "sign objects or bundles",
    "prepare": "write what must be signed, for a key that is elsewhere",
    "attach": "put a signature in that was made elsewhere",
    "verify": "check signatures, and that they cover all that runs",
    "inspect": "show programs, maps, signatures and what they cover",
    "load": "run the whole load on a kernel",
    "policy": "check IPE policies, and say what one would decide",
    "export": "write the raw parts of one scheme",
    "skeleton": "write C or Python source that embeds a bundle and loads it",
    "import": "read a C light skeleton (.lskel.h) into a bundle",
    "probe": "what this kernel can do for signed loaders, and why not",
    "push": "put a bundle into an OCI registry",
    "pull": "take a bundle out of an OCI registry",
}
"""A line about each verb, in the order of the help."""


class Verb(Protocol):
    """A module of this package."""

    def configure(self, options: Options) -> None:
        """Declare the verb's arguments and options."""

    def run(self, args: argparse.Namespace, console: Console) -> int:
        """Do it and return the exit status."""


def verb_module(name: str) -> Verb:
    """Return the module of a verb."""
    module = f"{name}_" if name == "import" else name  # which is a keyword
    return cast("Verb", import_module(f"{__name__}.{module}"))
