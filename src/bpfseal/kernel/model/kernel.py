"""`ModelKernel`: a kernel in Python that takes the calls of a load and really runs the loader.

It gives the answers of the kernel that its profile describes: a value, or a `KernelError` with the
errno and the rule behind it.

Example:
    >>> kernel = ModelKernel()
    >>> kernel.keyrings.add_key(SESSION, certificate_der)
    268435463
    >>> load(kernel, signed)
    >>> [program.name for program in kernel.programs]
    ['__loader.prog', 'handle_exec']
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from errno import EINVAL

from bpfseal.kernel.model.btf_objects import btf_load, kernel_btf_object
from bpfseal.kernel.model.fds import OpenFile
from bpfseal.kernel.model.kernel_btf import (
    ExtendedBtf,
    KernelBtf,
    KernelSymbols,
    SyntheticBtf,
    SyntheticSymbols,
)
from bpfseal.kernel.model.keyring import Keyrings
from bpfseal.kernel.model.lsm import Hook
from bpfseal.kernel.model.map_calls import map_create, map_freeze, map_update
from bpfseal.kernel.model.map_facts import MapFacts
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Region
from bpfseal.kernel.model.object_calls import ObjectCalls
from bpfseal.kernel.model.profile import KFUNC_SERIES, Profile
from bpfseal.kernel.model.prog_load import prog_load
from bpfseal.kernel.model.program import LinkFacts, LoadedProgram, ModelProgram, ProgAttributes
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.rights import ALL_RIGHTS, Rights
from bpfseal.kernel.model.run import run_program
from bpfseal.kernel.model.schemes import scheme_for
from bpfseal.kernel.model.state import Call, KernelState
from bpfseal.kernel.model.work import PATIENCE, Work
from bpfseal.kernel.protocol import (
    NO_POINTERS,
    MapCreate,
    MapInfo,
    ProgInfo,
    ProgLoad,
    RunResult,
)


class ModelKernel(ObjectCalls):
    """A kernel, and the process on it: an implementation of `bpfseal.kernel.protocol.MapKernel`.

    Args:
        profile: which kernel it is.
        kernel_btf: the kernel's own BTF; by default every name exists.
        symbols: the kernel's symbols; by default every name exists.
        hooks: LSM hooks, asked in order.
        bpf_keyring_unsealed: the boot parameter ``bpf.keyring_unsealed=1`` of kernels that have
            the keyring ``.bpf``.
        rights: what the process that loads may do.
        patience: units of work (`bpfseal.kernel.model.work`) after which the model gives up where a
            kernel would go on, beside one for each byte that it was given. The verifier of a kernel
            looks at a million insns, each of them a unit; that takes the model some ten seconds.
    """

    def __init__(
        self,
        *,
        profile: Profile = KFUNC_SERIES,
        kernel_btf: KernelBtf | None = None,
        symbols: KernelSymbols | None = None,
        hooks: Sequence[Hook] = (),
        bpf_keyring_unsealed: bool = False,
        rights: Rights = ALL_RIGHTS,
        patience: int = PATIENCE,
    ) -> None:
        self._mappings: dict[int, tuple[ModelMap, Region]] = {}
        btf = ExtendedBtf(kernel_btf or SyntheticBtf(), profile.kfuncs)
        self._state = KernelState(
            profile,
            btf,
            symbols or SyntheticSymbols(),
            tuple(hooks),
            bpf_keyring_unsealed=bpf_keyring_unsealed,
            rights=rights,
            work=Work(patience),
        )

    # What the kernel is, and what has happened on it.

    @property
    def description(self) -> str:
        """The profile and where the kernel's names come from."""
        return f"model: {self._state.profile.description}; kernel BTF: {self.btf.description}"

    @property
    def profile(self) -> Profile:
        """Which kernel it is."""
        return self._state.profile

    def accepted_scheme(self) -> str | None:
        """The strongest scheme of the loaders that the profile takes."""
        scheme = scheme_for(self.profile)
        return scheme.name if scheme is not None else None

    @property
    def btf(self) -> KernelBtf:
        """The kernel's own BTF; `assumed` says which names were taken on trust."""
        return self._state.btf

    @property
    def symbols(self) -> KernelSymbols:
        """The kernel's symbols."""
        return self._state.symbols

    @property
    def keyrings(self) -> Keyrings:
        """The keyrings, to put trusted certificates in."""
        return self._state.keyrings

    @property
    def programs(self) -> tuple[LoadedProgram, ...]:
        """Every program that was loaded, in order, as it is now or was when it went away."""
        return tuple(program.snapshot() for program in self._state.programs)

    @property
    def maps(self) -> tuple[MapFacts, ...]:
        """Every map that is alive, in the order of creation."""
        return tuple(known.facts for known in self._state.maps if known.alive)

    @property
    def links(self) -> tuple[LinkFacts, ...]:
        """Every link that was made, in order; nothing is attached."""
        return tuple(link.facts for link in self._state.links)

    @property
    def open_fds(self) -> dict[int, str]:
        """What each open fd refers to; 0, 1 and 2 are the caller's standard streams."""
        return self._state.fds.listing()

    @property
    def trace(self) -> tuple[Call, ...]:
        """Every call to the kernel, also those that loaders made, with its answer."""
        return tuple(self._state.calls)

    @property
    def printed(self) -> tuple[str, ...]:
        """The lines that programs printed with ``bpf_trace_printk``."""
        return tuple(self._state.printed)

    def program(self, fd: int) -> LoadedProgram:
        """Return the program behind a fd.

        Raises:
            KernelError: EBADF, EINVAL.
        """
        return self._state.fds.get_as(fd, ModelProgram).snapshot()

    def map(self, fd: int) -> MapFacts:
        """Return the map behind a fd.

        Raises:
            KernelError: EBADF, EINVAL.
        """
        return self._state.fds.get_as(fd, ModelMap).facts

    def open_file(self, name: str, fd: int | None = None) -> int:
        """Open a file of the caller's own, at `fd` if one is given, and return its fd."""
        return self._state.fds.install(OpenFile(name), fd)

    def open_kernel_btf(self) -> int:
        """Return a fd of the kernel's own BTF (BPF_BTF_GET_FD_BY_ID)."""
        return self._state.fds.install(kernel_btf_object())

    # The raw system call.

    def allocate(self, data: bytes) -> int:
        """Put bytes into user memory and return their address."""
        self._state.work.give(len(data))
        region = self._state.memory.map("user memory", bytearray(data), user=True)
        return region.base

    def read_memory(self, address: int, size: int) -> bytes:
        """Return bytes of user memory.

        Raises:
            MemoryFault: they are not all there.
        """
        return self._state.memory.read(address, size)

    def sys_bpf(self, command: int, attributes: bytes | bytearray) -> int:
        """Make a bpf(2) call with raw attributes, whose pointers lead to user memory.

        Args:
            command: a `bpfseal.bpf.uapi.Cmd`.
            attributes: as in ``union bpf_attr``; what the kernel writes back goes into a bytearray.

        Returns:
            A fd or 0.

        Raises:
            KernelError: the call was refused.
        """
        from bpfseal.kernel.model.user_calls import user_bpf  # a load makes no raw calls

        given = attributes if isinstance(attributes, bytearray) else bytearray(attributes)
        return user_bpf(self._state, command, given)

    def mmap(self, fd: int, *, writable: bool) -> int:
        """Map the values of an array into user memory and return their address.

        Raises:
            KernelError: EBADF, EINVAL for no map, ENOTSUPP, EPERM, EACCES.
        """
        target = self._state.fds.get_as(fd, ModelMap)
        mapped = self._record("mmap", f"fd {fd}", lambda: target.mmap(writable=writable))
        self._mappings[mapped.base] = (target, mapped)
        return mapped.base

    def munmap(self, address: int) -> None:
        """Take a mapping away that `mmap` made.

        Raises:
            KernelError: EINVAL for no such mapping.
        """
        if address not in self._mappings:
            raise refusal(EINVAL, "mm/mmap.c munmap", f"nothing is mapped at {address:#x}")
        target, mapped = self._mappings.pop(address)
        target.munmap(mapped)

    # The protocol.

    def map_create(self, request: MapCreate) -> int:
        """Create a map and return its fd."""
        attributes = MapAttributes(
            type=request.type,
            key_size=request.key_size,
            value_size=request.value_size,
            max_entries=request.max_entries,
            name=request.name,
            flags=request.flags,
            excl_prog_hash=request.excl_prog_hash,
        )
        return self._record("map_create", request.name, lambda: map_create(self._state, attributes))

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set one element."""
        self._state.work.give(len(value))
        self._record(
            "map_update",
            f"fd {fd}, {len(value)} bytes",
            lambda: map_update(self._state, fd, key, value, flags),
        )

    def map_freeze(self, fd: int) -> None:
        """Make the map read-only for user space."""
        self._record("map_freeze", f"fd {fd}", lambda: map_freeze(self._state, fd))

    def map_hash(self, fd: int) -> bytes:
        """Return the SHA-256 of the map's contents."""
        return self._record(
            "map_hash",
            f"fd {fd}",
            lambda: self._state.fds.get_as(fd, ModelMap).user_hash(),
        )

    def map_info(self, fd: int) -> MapInfo:
        """Return the facts of a map."""

        def call() -> MapInfo:
            told = self._state.fds.get_as(fd, ModelMap).attributes
            return MapInfo(told.type, told.key_size, told.value_size, told.max_entries)

        return self._record("map_info", f"fd {fd}", call)

    def prog_info(self, fd: int) -> ProgInfo:
        """Return the facts of a program."""

        def call() -> ProgInfo:
            return ProgInfo(self._state.fds.get_as(fd, ModelProgram).attributes.type)

        return self._record("prog_info", f"fd {fd}", call)

    def btf_load(self, data: bytes) -> int:
        """Load a BTF and return its fd."""
        self._state.work.give(len(data))
        return self._record(
            "btf_load",
            f"{len(data)} bytes",
            lambda: btf_load(self._state, data),
        )

    def prog_load(self, request: ProgLoad) -> int:
        """Load a program and return its fd."""
        self._state.work.give(len(request.insns))
        attributes = ProgAttributes(
            type=request.type,
            name=request.name,
            insns=request.insns,
            license=request.license,
            flags=request.flags,
            btf_fd=request.btf_fd,
            fd_array=request.fd_array,
            fd_array_count=request.fd_array_cnt,
            signature=request.signature,
            keyring_id=request.keyring_id,
            log_level=request.log_level,
        )
        signed = "unsigned" if request.signature is None else "signed"
        return self._record(
            "prog_load",
            f"{request.name}, {signed}",
            lambda: prog_load(self._state, attributes),
        )

    def prog_run(
        self, fd: int, ctx: bytes, pointers: Mapping[int, bytes] = NO_POINTERS
    ) -> RunResult:
        """Run a SYSCALL program once.

        Raises:
            KernelError: EBADF, EINVAL for no program or a context that is too large, ENOTSUPP for
                a program of a type that the model does not run, EFAULT for a program that does
                what the kernel's verifier would not have let it.
        """
        first = len(self._state.calls)
        context = bytearray(ctx)
        for offset, data in pointers.items():
            context[offset : offset + 8] = self.allocate(data).to_bytes(8, "little")
        returned = self._record(
            "prog_run", f"fd {fd}", lambda: run_program(self._state, fd, bytes(context))
        )
        retval, after = returned
        refused = (call for call in self._state.calls[first:] if call.rule)
        rules = [call.rule for call in refused if call.result == retval]
        return RunResult(retval, after, rules[-1] if rules else "")

    def close(self, fd: int) -> None:
        """Close a fd."""
        self._record("close", f"fd {fd}", lambda: self._state.fds.close(fd))
