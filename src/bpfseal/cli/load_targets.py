"""The kernels that ``bpfseal load`` loads into: the running one, and the model.

Both have the same face, so that the verb does not ask which one it has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from bpfseal.cli.policies import print_records, read_policy, record_fields
from bpfseal.errors import BpfsealError, CapabilityError, KernelError, UsageError

if TYPE_CHECKING:
    from bpfseal.cli.console import Console
    from bpfseal.kernel.linux.kernel import LinuxKernel
    from bpfseal.kernel.model import ModelKernel
    from bpfseal.kernel.model.ipe import Ipe
    from bpfseal.kernel.model.profile import Profile
    from bpfseal.kernel.protocol import MapKernel

LINUX: Final = "linux"
MODEL: Final = "model"

MODEL_ONLY: Final = ("btf", "policy", "permissive", "success_audit", "trace")
"""Options that say what the model is or shows."""

LINUX_ONLY: Final = ("pin", "hold")
"""Options about what outlives the load."""


class Target(Protocol):
    """A kernel to load into."""

    @property
    def kernel(self) -> MapKernel:
        """The kernel."""

    def enrolled(
        self, keyring_id: int, certificates: Sequence[bytes]
    ) -> AbstractContextManager[None]:
        """Have certificates in a keyring during the load."""

    def explain(self, error: BpfsealError) -> int:
        """Complete the message of a refusal, and return the exit status."""

    def program_fields(self, fd: int) -> dict[str, Any]:
        """What the kernel says of a program that came up, as JSON values."""

    def map_fields(self, fd: int) -> dict[str, Any]:
        """What the kernel says of a map that came up, as JSON values."""

    def fields(self) -> dict[str, Any]:
        """What else the kernel has to say about the load, as JSON values."""

    def show(self, console: Console) -> None:
        """Print what only this kind of kernel tells."""


def open_target(args: argparse.Namespace) -> Target:
    """Return the kernel that ``--kernel`` names; without it the running one if this process may.

    Raises:
        UsageError: there is no such kernel, or an option does not go with it.
        InputError: the policy or the kernel's BTF is malformed.
    """
    from bpfseal.kernel.linux.process import may_load_programs

    name = args.kernel or (LINUX if may_load_programs() else MODEL)
    if name == LINUX:
        _refuse_options(args, MODEL_ONLY, f"--kernel {MODEL}")
        return LinuxTarget()
    _refuse_options(args, LINUX_ONLY, f"--kernel {LINUX}")
    return ModelTarget(args, _profile(name))


def _refuse_options(args: argparse.Namespace, names: Sequence[str], hint: str) -> None:
    for name in names:
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} does not go with this kernel", hint=hint)


def _profile(name: str) -> Profile:
    from bpfseal.kernel.model.profile import KFUNC_SERIES, PROFILES

    kind, _, profile = name.partition(":")
    if kind != MODEL or profile not in ("", *PROFILES):
        raise UsageError(
            f"no kernel {name!r}",
            hint=f"{LINUX}, {MODEL}, or {MODEL}:PROFILE with one of {', '.join(PROFILES)}",
        )
    return PROFILES[profile] if profile else KFUNC_SERIES


class LinuxTarget:
    """The running kernel."""

    def __init__(self) -> None:
        from bpfseal.kernel.linux.kernel import LinuxKernel

        if not sys.platform.startswith("linux"):
            raise CapabilityError("this system is not Linux", hint=f"--kernel {MODEL}")
        self.kernel: LinuxKernel = LinuxKernel()

    def enrolled(
        self, keyring_id: int, certificates: Sequence[bytes]
    ) -> AbstractContextManager[None]:
        """Have certificates in a keyring during the load; afterwards they are out again."""
        return self.kernel.keyrings.enrolled(keyring_id, certificates)

    def explain(self, error: BpfsealError) -> int:
        """Tell apart what is wrong with the artifact and what this machine lacks."""
        from bpfseal.kernel.linux.trial import verifies_signatures

        if isinstance(error, KernelError) and error.step == "add_key":
            finding = verifies_signatures(self.kernel)
            if finding.answer is False:
                _blame_kernel(error, finding.reason)
        return _status(error)

    def program_fields(self, fd: int) -> dict[str, Any]:
        """Return the program's id and tag."""
        from bpfseal.kernel.linux.process import fd_fields

        fields = fd_fields(fd)
        return {"id": int(fields.get("prog_id", 0)), "tag": fields.get("prog_tag", "")}

    def map_fields(self, fd: int) -> dict[str, Any]:
        """Return the map's id and size, and whether it is frozen."""
        from bpfseal.kernel.linux.process import fd_fields

        fields = fd_fields(fd)
        return {
            "id": int(fields.get("map_id", 0)),
            "max_entries": int(fields.get("max_entries", 0)),
            "frozen": fields.get("frozen") == "1",
        }

    def fields(self) -> dict[str, Any]:
        """Return nothing: a real kernel keeps its verdict to itself."""
        return {}

    def show(self, console: Console) -> None:
        """Print nothing."""


class ModelTarget:
    """The model of a kernel, with a policy if one was asked for."""

    def __init__(self, args: argparse.Namespace, profile: Profile) -> None:
        from bpfseal.kernel.model import ModelKernel, choose_kernel_btf

        self._ipe = _ipe(args)
        self._profile = profile
        self._has_trace = bool(args.trace)
        btf = choose_kernel_btf(Path(args.btf) if args.btf is not None else None)
        hooks = [self._ipe] if self._ipe else ()
        self.kernel: ModelKernel = ModelKernel(profile=profile, kernel_btf=btf, hooks=hooks)

    def enrolled(
        self, keyring_id: int, certificates: Sequence[bytes]
    ) -> AbstractContextManager[None]:
        """Put certificates into a keyring."""
        for certificate in certificates:
            self.kernel.keyrings.add_key(keyring_id, certificate)
        return nullcontext()

    def explain(self, error: BpfsealError) -> int:
        """Say which rule denied, if it was the policy that refused."""
        if isinstance(error, KernelError):
            if self._ipe is not None:
                _explain_denial(error, self._ipe)
            if error.step == "add_key" and not self._profile.has_data_verification:
                _blame_kernel(error, "built without CONFIG_SYSTEM_DATA_VERIFICATION")
        return _status(error)

    def program_fields(self, fd: int) -> dict[str, Any]:  # noqa: ARG002 - Target's
        """Return nothing: the model has no ids."""
        return {}

    def map_fields(self, fd: int) -> dict[str, Any]:
        """Return the map's size, and whether it is frozen."""
        facts = self.kernel.map(fd)
        return {"max_entries": facts.max_entries, "frozen": facts.frozen}

    def fields(self) -> dict[str, Any]:
        """Return the verdict, what was assumed and printed, audit records and the trace."""
        kernel = self.kernel
        fields: dict[str, Any] = {
            "assumed": [
                *kernel.btf.assumed,
                *(f"symbol {name}" for name in kernel.symbols.assumed),
            ],
            "printed": list(kernel.printed),
        }
        if kernel.programs:
            fields["verdict"] = kernel.programs[0].verdict.name
        if self._ipe is not None:
            fields["audit"] = record_fields(self._ipe.records)
        if self._has_trace:
            fields["trace"] = [
                {
                    "by": call.by,
                    "call": call.name,
                    "arguments": call.arguments,
                    "result": call.result,
                    "rule": call.rule,
                }
                for call in kernel.trace
            ]
        return fields

    def show(self, console: Console) -> None:
        """Print the audit records."""
        if self._ipe is not None:
            print_records(self._ipe.records, console)


def _blame_kernel(error: KernelError, reason: str) -> None:
    """Say of a refused certificate that the kernel verifies no signature at all."""
    error.hint = f"this kernel cannot verify signatures: {reason}"
    error.is_environment = True


def _status(error: BpfsealError) -> int:
    """Return the exit status of a refusal: what no artifact can change is the kernel's."""
    if isinstance(error, KernelError) and error.is_environment:
        return CapabilityError.exit_status
    return error.exit_status


def _ipe(args: argparse.Namespace) -> Ipe | None:
    """Return IPE with the policy that was asked for."""
    if args.policy is not None:
        from bpfseal.kernel.model.ipe import Ipe

        policy = read_policy(args.policy)
        return Ipe.booted(policy, enforce=not args.permissive, success_audit=args.success_audit)
    for name in ("permissive", "success_audit"):
        if getattr(args, name):
            raise UsageError(f"--{name.replace('_', '-')} without a policy", hint="--policy FILE")
    return None


def _explain_denial(error: KernelError, ipe: Ipe) -> None:
    from bpfseal.kernel.model.ipe.policy import ALLOW_INNER_LOADS

    if not ipe.questions or ipe.questions[-1].answer != -error.errno:
        return
    last = ipe.questions[-1]
    event, decision = last.event, last.decision
    line = f", line {decision.rule.line}" if decision.rule else ""
    error.message = (
        f"the policy denies {last.program} at {event.operation.value} with {event}: "
        f"{decision}{line}"
    )
    if event.is_kernel:
        error.hint = "allow what loaders install before that: " + ALLOW_INNER_LOADS
