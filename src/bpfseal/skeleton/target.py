"""A program that is about to be attached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bpfseal.kernel.protocol import LinkCreate, MapKernel
from bpfseal.loader.model import ProgramEntry


@dataclass(frozen=True, slots=True)
class Target:
    """A loaded program and what its section says.

    Attributes:
        kernel: where it is loaded.
        fd: the program.
        entry: its facts.
    """

    kernel: MapKernel
    fd: int
    entry: ProgramEntry

    @property
    def stem(self) -> str:
        """The section up to its first slash: ``kprobe``."""
        return self.entry.section.partition("/")[0]

    @property
    def place(self) -> str:
        """The section behind its first slash: ``do_unlinkat``, or ``""``."""
        return self.entry.section.partition("/")[2]

    def link(
        self,
        target: int = 0,
        *,
        attach_type: int | None = None,
        flags: int = 0,
        kind: str = "",
        numbers: Mapping[str, int] | None = None,
        data: Mapping[str, bytes] | None = None,
        texts: Mapping[str, tuple[str, ...]] | None = None,
    ) -> int:
        """Create a link and return its fd; see `bpfseal.kernel.protocol.LinkCreate`."""
        return self.kernel.link_create(
            LinkCreate(
                prog_fd=self.fd,
                attach_type=self.entry.attach_type if attach_type is None else attach_type,
                target=target,
                flags=flags,
                kind=kind,
                numbers=numbers or {},
                data=data or {},
                texts=texts or {},
            )
        )
