"""CO-RE relocations: match the types that a program was compiled with against a kernel's.

Pure BTF: the same code serves the kernel model and what reads objects offline. The rules are those
that the kernel and libbpf share (tools/lib/bpf/relo_core.c).

Example:
    >>> relocator = Relocator(program_btf, TargetTypes(kernel_btf))
    >>> relocator.apply(insns, 0, Relocation.from_record(record, program_btf.string(record[2])))
"""

from bpfseal.btf.core.matching import TargetTypes
from bpfseal.btf.core.relocation import Relocation, RelocationError, RelocationKind
from bpfseal.btf.core.relocator import POISONED, Relocator

__all__ = [
    "POISONED",
    "Relocation",
    "RelocationError",
    "RelocationKind",
    "Relocator",
    "TargetTypes",
]
