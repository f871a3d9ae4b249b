"""All that a kernel of the model holds, for the functions that are its system calls.

Example:
    >>> state = KernelState(KFUNC_SERIES, SyntheticBtf(), SyntheticSymbols(), hooks=())
    >>> state.fds.listing()[0]
    'file stdin'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from bpfseal.errors import KernelError
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.fds import FdTable, KernelObject
from bpfseal.kernel.model.kernel_btf import KernelBtf, KernelSymbols
from bpfseal.kernel.model.keyring import Keyrings
from bpfseal.kernel.model.lsm import Hook
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Memory
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.rights import ALL_RIGHTS, Rights
from bpfseal.kernel.model.work import CALL, Work

if TYPE_CHECKING:
    from bpfseal.kernel.model.links import ModelLink

T = TypeVar("T")

USER: Final = "user"
"""Who makes the calls that no program makes (`Call.by`)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call to the kernel, or of a helper or kfunc, and its answer.

    Attributes:
        by: ``user``, or the name of the program that made the call.
        name: the call, for example ``map_create``.
        arguments: what it was about, one line.
        result: what it returned: a fd, 0, or a negative errno.
        rule: the rule that refused it, or ``""``.
    """

    by: str
    name: str
    arguments: str
    result: int
    rule: str = ""


@dataclass(eq=False, slots=True)
class KernelState:
    """A kernel.

    Attributes:
        profile: which kernel it is.
        btf: the kernel's own BTF.
        symbols: the kernel's symbols.
        hooks: the LSM hooks, in order.
        memory: the address space.
        fds: the fds of the process that loads.
        keyrings: the keyrings.
        maps: every map that was made, in order.
        programs: every program that was loaded, in order.
        links: every link that was made, in order.
        btfs: every BTF that was loaded, in order.
        pins: what is pinned in bpffs, by path.
        calls: every call, in order.
        printed: what programs printed.
        verifier_log_peak: characters that it had at most, before parts were taken back.
        verifier_log: what the last BPF_PROG_LOAD wrote into its log.
        bpf_keyring_unsealed: the boot parameter ``bpf.keyring_unsealed=1``.
        rights: what the process that loads may do.
        work: how much work the current call may still be.
    """

    profile: Profile
    btf: KernelBtf
    symbols: KernelSymbols
    hooks: Sequence[Hook]
    memory: Memory = field(default_factory=Memory)
    fds: FdTable = field(default_factory=FdTable)
    keyrings: Keyrings = field(init=False)
    maps: list[ModelMap] = field(default_factory=list)
    programs: list[ModelProgram] = field(default_factory=list)
    links: list[ModelLink] = field(default_factory=list)
    btfs: list[BtfObject] = field(default_factory=list)
    pins: dict[str, KernelObject] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    verifier_log: str = ""
    verifier_log_peak: int = 0
    bpf_keyring_unsealed: bool = False
    rights: Rights = ALL_RIGHTS
    work: Work = field(default_factory=Work)

    def __post_init__(self) -> None:
        self.keyrings = Keyrings(self.profile, bpf_unsealed=self.bpf_keyring_unsealed)

    @property
    def has_excl(self) -> bool:
        """Whether ``struct bpf_map`` has the field ``excl``.

        Where that depends on the update of a release, the kernel's BTF says; a synthetic one
        assumes that it has.
        """
        answer = self.profile.has_excl
        return answer == "yes" or (answer == "some" and self.btf.has_member("bpf_map", "excl"))

    def map_at(self, address: int) -> ModelMap | None:
        """Return the map whose ``struct bpf_map`` is at an address."""
        return next((m for m in self.maps if m.is_at(address)), None)

    def note(self, by: str, name: str, arguments: str, answer: int | KernelError) -> int:
        """Note a call with its answer, and return that: a refusal is a negative errno."""
        if isinstance(answer, KernelError):
            result, rule = -answer.errno, answer.rule
        else:
            result, rule = answer, ""
        if by != USER:
            self.work.spend(CALL)
        self.calls.append(Call(by, name, arguments, result, rule))
        return result

    def record(self, by: str, name: str, arguments: str, call: Callable[[], T]) -> T:
        """Make a call and note it with its answer.

        Raises:
            KernelError: the call was refused; that is noted too.
        """
        if by == USER:
            self.work.begin()
        try:
            result = call()
        except KernelError as error:
            self.note(by, name, arguments, error)
            raise
        self.note(by, name, arguments, result if isinstance(result, int) else 0)
        return result

    def answer(self, by: str, name: str, arguments: str, call: Callable[[], int]) -> int:
        """Make a call for a running program and note it: a refusal becomes a negative errno."""
        try:
            return self.record(by, name, arguments, call)
        except KernelError as error:
            return -error.errno
