"""Every error that leaves bpfseal.

One root class, one subclass for each exit status of the command line. The message is one line that
says what is wrong, where, and why; `hint` says what to do about it.

Example:
    >>> str(InputError("not an ELF file", where="a.bpf.o"))
    'a.bpf.o: not an ELF file'
"""

from __future__ import annotations

import errno as errno_module

_KERNEL_ONLY = {524: "ENOTSUPP"}
"""Errnos that exist inside Linux only (include/linux/errno.h)."""


def errno_name(number: int) -> str:
    """Return the symbolic name of a positive errno, for example ``EBADMSG`` for 74."""
    if number == errno_module.EOPNOTSUPP:
        return "EOPNOTSUPP"
    return errno_module.errorcode.get(number) or _KERNEL_ONLY.get(number, f"errno {number}")


class BpfsealError(Exception):
    """The root of all errors that bpfseal raises.

    Attributes:
        message: one line: what is wrong and why.
        where: the file, section, offset or step that the message is about, or ``""``.
        hint: one line that says what to do about it, or ``""``.
        exit_status: the exit status of the command line for this error.
    """

    exit_status = 3

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class InputError(BpfsealError):
    """A file, blob or header that cannot be read or does not follow its format."""

    exit_status = 3


class UnsupportedError(InputError):
    """Well-formed input that asks for something that no loader can do."""


class UsageError(BpfsealError):
    """The caller's options contradict each other or are missing."""

    exit_status = 2


class VerificationError(BpfsealError):
    """A signature, certificate or digest does not verify."""

    exit_status = 1


class CapabilityError(BpfsealError):
    """This machine cannot do what was asked: no privilege, no such kernel feature or token."""

    exit_status = 4


class KernelError(BpfsealError):
    """A kernel (real or model) refused a call.

    Attributes:
        errno: the positive errno, for example 74 for ``EBADMSG``.
        step: the step of the load that was refused, for example ``"prog_load"``.
        log: the verifier log, or ``""``.
        rule: the check that refused and its source, where it is known (the model knows it).
        is_environment: it says more about the kernel or the process than about the artifact.
    """

    exit_status = 1

    def __init__(
        self,
        errno: int,
        message: str = "",
        *,
        step: str = "",
        log: str = "",
        rule: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, where=step, hint=hint)
        self.errno = errno
        self.step = step
        self.log = log
        self.rule = rule
        self.is_environment = False

    @property
    def errno_name(self) -> str:
        """The symbolic name of the errno, for example ``EBADMSG``."""
        return errno_name(self.errno)

    def __str__(self) -> str:
        text = f"-{self.errno_name}" + (f": {self.message}" if self.message else "")
        text = f"{self.step}: {text}" if self.step else text
        return f"{text} ({self.hint})" if self.hint else text
