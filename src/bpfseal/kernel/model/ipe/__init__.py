r"""The LSM IPE as the kernel with the series has it: policies over the verdicts of BPF programs.

Example:
    >>> ipe = Ipe.booted(parse_policy(b"policy_name=p policy_version=1.0.0\nDEFAULT action=DENY"))
    >>> kernel = ModelKernel(hooks=[ipe])
"""

from bpfseal.kernel.model.ipe.engine import Ipe
from bpfseal.kernel.model.ipe.parser import PolicyError, parse_policy

__all__ = ["Ipe", "PolicyError", "parse_policy"]
