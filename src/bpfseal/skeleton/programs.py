"""Programs of a skeleton: attach them, run them.

Example:
    >>> link = skel.programs.on_exec.attach()  # doctest: +SKIP
    >>> skel.programs.count.attach(interface="eth0")  # doctest: +SKIP
    >>> skel.programs.filter.run(packet).retval  # doctest: +SKIP
    65535
"""

from __future__ import annotations

from typing import Any

from bpfseal.bpf.uapi import ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.protocol import MapKernel, TestResult
from bpfseal.loader.model import ProgramEntry
from bpfseal.signals import deferred_endings
from bpfseal.skeleton.attach import attach, names_attach_point
from bpfseal.skeleton.handle import Handle
from bpfseal.skeleton.links import Link


class Program:
    """One program of a skeleton.

    Attributes:
        entry: its facts.
        links: the links that `attach` made.
    """

    def __init__(
        self,
        kernel: MapKernel,
        handle: Handle,
        entry: ProgramEntry,
        *,
        trust_sections: bool = False,
    ) -> None:
        self._kernel = kernel
        self._handle = handle
        self._trust_sections = trust_sections
        self.entry = entry
        self.links: list[Link] = []

    @property
    def name(self) -> str:
        """The C function's name."""
        return self.entry.name

    @property
    def type(self) -> ProgType:
        """The program type."""
        return ProgType(self.entry.type)

    @property
    def fd(self) -> int:
        """The fd, which belongs to the skeleton.

        Raises:
            UsageError: the skeleton is closed; so do `attach` and `run`.
        """
        return self._handle.fd

    def fileno(self) -> int:
        """The fd, so that a program is taken wherever a file is."""
        return self.fd

    @property
    def attach_point_is_covered(self) -> bool:
        """Whether what `attach` does without arguments is signed, or was asked for unsigned.

        The attach points of kprobes, uprobes, tracepoints and raw tracepoints are not: only the
        bundle's config says them.
        """
        return self._trust_sections or not names_attach_point(self.entry)

    def attach(self, *, trust_sections: bool = False, **arguments: Any) -> Link:
        """Attach the program and return its link, which the skeleton closes at the latest.

        Args:
            trust_sections: believe what the bundle says of the attach point without a signature.
            **arguments: what this kind of program takes: `bpfseal.skeleton.attach.how_to_attach`
                tells, and docs/skeletons.md.

        Raises:
            UsageError: an argument is missing or unknown, or no link attaches such a program;
                `UncoveredError` where only the unsigned config says to what.
            CapabilityError: this machine has no such interface, tracepoint or file.
            KernelError: the kernel refused.
        """
        with deferred_endings():  # until the skeleton has the fd
            try:
                fd = attach(
                    self._kernel,
                    self.fd,
                    self.entry,
                    arguments,
                    trust_sections=trust_sections or self._trust_sections,
                )
            except KernelError as error:
                error.step = error.where = error.step or f"attach {self.name}"
                raise
            link = Link(self._kernel, fd, self.name, self.entry.attach_type)
            self.links.append(link)
        return link

    def run(self, data: bytes = b"", ctx: bytes = b"", *, repeat: int = 1) -> TestResult:
        """Run the program once on a packet or a context (BPF_PROG_TEST_RUN).

        Args:
            data: a packet, for programs that see one: at least the 14 bytes of an Ethernet header.
            ctx: the context; for a SYSCALL program its argument.
            repeat: how often to run it on a packet, for `TestResult.duration`.

        Raises:
            KernelError: EINVAL for too short a packet, ENOTSUPP (524) for a type that is not run.
        """
        if self.type is ProgType.SYSCALL:
            retval, after, _ = self._kernel.prog_run(self.fd, ctx)
            return TestResult(retval & 0xFFFFFFFF, b"", after, 0)
        return self._kernel.prog_test_run(self.fd, data, ctx, repeat)

    def __repr__(self) -> str:
        return f"<program {self.name}: {self.type.name}>"
