"""CO-RE records of a program that is being loaded, applied against the kernel's own BTF.

Where that is synthetic, what the compiler knew is taken for what the kernel has, and what that was
is noted as assumed. A kernel looks in the BTF of its modules too, for types that it does not have
itself; the model knows of no modules.

Source: kernel/bpf/verifier.c ``check_core_relo``, kernel/bpf/btf.c ``bpf_core_apply``.

Example:
    >>> apply_core_relos(state, program)
    >>> state.btf.assumed
    ['field task_struct.pid']
"""

from __future__ import annotations

from errno import EINVAL

from bpfseal.bpf.insn import INSN_SIZE
from bpfseal.btf.btf import Btf
from bpfseal.btf.core import POISONED, Relocation, RelocationError, RelocationKind, Relocator
from bpfseal.btf.core.spec import Spec, Types, essential_name, parse_spec
from bpfseal.kernel.model.program import ModelProgram, insns_digest
from bpfseal.kernel.model.records import CORE_RELO
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState

_SOURCE = "kernel/bpf/btf.c bpf_core_apply"


def apply_core_relos(state: KernelState, program: ModelProgram) -> None:
    """Change the insns of a program as its CO-RE records say.

    What the kernel does not have makes an insn a call of a helper that does not exist: that is no
    error unless the verifier gets there.

    Raises:
        KernelError: EINVAL for a record that does not fit program or BTF, or that several types of
            the kernel answer differently; E2BIG, ERANGE; and what reading a record gives.
    """
    if not program.attributes.core_relos.count or program.btf is None:
        return
    local, kernel_types = program.btf.btf, state.btf.types
    insns = list(program.insns)
    relocator = Relocator(local, kernel_types) if kernel_types is not None else None
    types = Types(local)
    for number, row in enumerate(program.attributes.core_relos.rows(CORE_RELO)):
        offset, _type_id, access_at, _kind = row
        if offset % INSN_SIZE or offset // INSN_SIZE >= len(insns):
            log = f"Invalid core_relo[{number}].insn_off:{offset} prog->len:{len(insns)}"
            raise refusal(EINVAL, "kernel/bpf/verifier.c check_core_relo", log, log=log)
        access = local.string(access_at) if access_at < len(local.strings) else ""
        relocation = Relocation.from_record(row, access)
        try:
            if relocator is None:
                state.btf.assume(_describe(types, relocation))
                continue
            relocator.apply(insns, number, relocation)
        except RelocationError as error:
            log = relocator.log.rstrip("\n") if relocator is not None else ""
            message = f"relo #{number}, {_told(local, relocation)}: {error.message}"
            raise refusal(error.errno, _SOURCE, message, log=log) from error
        if insns[relocation.insn] == POISONED:
            program.poisoned[relocation.insn] = _told(local, relocation)
    if relocator is not None:
        program.insns = tuple(insns)
        if program.attributes.log_level:
            state.verifier_log += relocator.log
        if not program.is_signed:
            program.digest = insns_digest(program.insns)


def _told(local: Btf, relocation: Relocation) -> str:
    """Return what a record is about, for people."""
    kind, root = relocation.kind, f"type {relocation.type_id}"
    label = kind.label if isinstance(kind, RelocationKind) else f"kind {kind}"
    if relocation.type_id < len(local):
        known = local.type_by_id(relocation.type_id)
        root = f"{known.kind.name.lower()} {known.name or '<anon>'}"
    return f"{label} of {root}, access string {relocation.access!r}, insn {relocation.insn}"


def _describe(types: Types, relocation: Relocation) -> str:
    """Return what a program takes a kernel to have, for example ``field task_struct.pid``.

    Raises:
        RelocationError: a record that no kernel accepts, whatever its types are.
    """
    if relocation.type_id >= len(types.btf):
        raise RelocationError(f"bad type id {relocation.type_id}")
    spec = parse_spec(types, relocation)
    root = types[relocation.type_id]
    if not root.name and relocation.kind is not RelocationKind.TYPE_ID_LOCAL:
        raise RelocationError("target candidate search failed")
    name = essential_name(root.name)
    if spec.kind.is_field:
        return f"field {name}{_path(spec)}"
    if spec.kind.is_enumerator:
        return f"enumerator {name}.{essential_name(spec.accessors[0].name or '')}"
    return f"{root.kind.name.lower()} {name}"


def _path(spec: Spec) -> str:
    return "".join(f".{step.name}" for step in spec.accessors if step.name is not None)
