"""How the verifier says no: a `Refused`, which the caller makes a `KernelError` with the log of.

Example:
    >>> raise Refused(EACCES, "check_reg_arg", "R2 !read_ok")
    Traceback (most recent call last):
    bpfseal.kernel.model.analysis.refused.Refused: R2 !read_ok
"""

from __future__ import annotations

from bpfseal.errors import BpfsealError


class Refused(BpfsealError):  # noqa: N818 (it is the verifier's verdict)
    """A program is refused.

    Attributes:
        errno: the positive errno.
        function: the function of kernel/bpf/verifier.c that holds the rule.
        detail: what the log tells behind the message.
    """

    def __init__(self, errno: int, function: str, message: str) -> None:
        super().__init__(message)
        self.errno = errno
        self.function = function
        self.detail = ""
