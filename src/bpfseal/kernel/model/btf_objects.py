"""BTF objects of the kernel model: what BPF_BTF_LOAD makes.

Example:
    >>> btf = BtfObject.load(loader_btf)
    >>> btf.function_name(4)
    'bpf_loader_verify_metadata'
"""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import TYPE_CHECKING, Final

from bpfseal.btf.btf import Btf
from bpfseal.btf.builder import BtfBuilder
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError
from bpfseal.kernel.model.btf_fields import check_structs
from bpfseal.kernel.model.btf_header import check_header
from bpfseal.kernel.model.btf_records import check_records
from bpfseal.kernel.model.btf_resolution import check_resolution
from bpfseal.kernel.model.fds import KernelObject
from bpfseal.kernel.model.refusal import refusal

if TYPE_CHECKING:
    from bpfseal.kernel.model.state import KernelState

VMLINUX_BTF_ID: Final = 1
"""The id of the kernel's own BTF, which exists before any other."""

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
    def load(cls, raw: bytes, *, tags_first: bool = True, header_size: int = 24) -> BtfObject:
        """Check a BTF as the kernel does and make an object of it.

        Args:
            raw: the bytes.
            tags_first: the kernel wants type tags before other modifiers.
            header_size: bytes of the header that the kernel knows.

        Raises:
            KernelError: EINVAL for a malformed BTF or one in foreign byte order, E2BIG for more
                than `MAX_BTF_SIZE` bytes or types nested too deep, EEXIST for types that contain
                themselves, ENOTSUPP for an INT of a kind or a version that the kernel does not
                know; what `bpfseal.kernel.model.btf_fields` says of special fields.
        """
        source = "kernel/bpf/btf.c btf_parse"
        if len(raw) > MAX_BTF_SIZE:
            raise refusal(E2BIG, source, f"BTF of {len(raw)} bytes")
        check_header(raw, header_size=header_size)
        try:
            btf = Btf.from_bytes(raw, "btf")
        except InputError as error:
            raise refusal(EINVAL, source, str(error)) from error
        if btf.byteorder != "little":
            raise refusal(EINVAL, source, "BTF of another byte order")
        if len(btf) == 1:
            raise refusal(EINVAL, source, "BTF without types")
        check_records(btf)
        check_resolution(btf, tags_first=tags_first)
        check_structs(btf)
        return cls(raw, btf)

    def function_name(self, type_id: int) -> str | None:
        """Return the name of a FUNC, or ``None`` if the id is not that of one."""
        if not 0 < type_id < len(self.btf) or self.btf.kind_of(type_id) is not Kind.FUNC:
            return None
        return self.btf.type_by_id(type_id).name


def btf_load(state: KernelState, raw: bytes) -> int:
    """Load a BTF and return its fd.

    Raises:
        KernelError: EINVAL, E2BIG.
    """
    profile = state.profile
    loaded = BtfObject.load(raw, tags_first=profile.tags_first, header_size=profile.btf_header_size)
    state.btfs.append(loaded)
    loaded.id = VMLINUX_BTF_ID + len(state.btfs)
    return state.fds.install(loaded)


def kernel_btf_object() -> BtfObject:
    """Return an object that stands for the kernel's own BTF; it is of use to nobody but to be one.

    What the BTF says is asked of `bpfseal.kernel.model.kernel_btf`.
    """
    raw = BtfBuilder().encode()
    kernel = BtfObject(raw, Btf.from_bytes(raw), is_kernel=True)
    kernel.id = VMLINUX_BTF_ID
    return kernel
