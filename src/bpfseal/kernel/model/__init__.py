"""The kernel in Python: maps, BTF, keyrings, signatures, verdicts, LSM hooks, and a machine."""

from bpfseal.kernel.model.kernel import ModelKernel
from bpfseal.kernel.model.kernel_btf import choose_kernel_btf

__all__ = ["ModelKernel", "choose_kernel_btf"]
