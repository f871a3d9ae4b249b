"""BTF objects of the kernel model: what BPF_BTF_LOAD makes.

Example:
    >>> btf = BtfObject.load(loader_btf)
    >>> btf.function_name(4)
    'bpf_loader_verify_metadata'
"""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import Final

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.refusal import refusal

MAX_BTF_SIZE: Final = 16 << 20
"""BTF_MAX_SIZE (include/linux/btf.h)."""


class BtfObject(KernelObject):
    """A loaded BTF.

    Attributes:
        raw: the bytes as they were given.
        btf: the same, parsed.
        is_kernel: it describes the kernel itself.
    """

    def __init__(self, raw: bytes, btf: Btf, *, is_kernel: bool = False) -> None:
        super().__init__()
        self.raw = raw
        self.btf = btf
        self.is_kernel = is_kernel

    @property
    def label(self) -> str:
        """``btf`` with the number of its types."""
        return f"btf of {len(self.btf) - 1} types"

    @classmethod
    def load(cls, raw: bytes) -> BtfObject:
        """Check a BTF's structure and make an object of it.

        Raises:
            KernelError: EINVAL for a malformed BTF or one in foreign byte order, E2BIG for more
                than `MAX_BTF_SIZE` bytes.
        """
        source = "kernel/bpf/btf.c btf_parse"
        if len(raw) > MAX_BTF_SIZE:
            raise refusal(E2BIG, source, f"BTF of {len(raw)} bytes")
        try:
            btf = Btf.from_bytes(raw, "btf")
        except InputError as error:
            raise refusal(EINVAL, source, str(error)) from error
        if btf.byteorder != "little":
            raise refusal(EINVAL, source, "BTF of another byte order")
        if len(btf) == 1:
            raise refusal(EINVAL, source, "BTF without types")
        return cls(raw, btf)

    def function_name(self, type_id: int) -> str | None:
        """Return the name of a FUNC, or ``None`` if the id is not that of one."""
        if not 0 < type_id < len(self.btf) or self.btf.kind_of(type_id) is not Kind.FUNC:
            return None
        return self.btf.type_by_id(type_id).name


def kernel_btf_object() -> BtfObject:
    """Return an object that stands for the kernel's own BTF; it is of use to nobody but to be one.

    What the BTF says is asked of `bpfseal.kernel.model.kernel_btf`.
    """
    raw = BtfBuilder().encode()
    return BtfObject(raw, Btf.from_bytes(raw), is_kernel=True)
