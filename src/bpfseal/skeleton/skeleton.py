"""A loaded bundle as an object: its maps, global variables, programs and links.

Example:
    >>> with bpfseal.load("exectrace.bpfseal") as skel:  # doctest: +SKIP
    ...     skel.attach()
    ...     with RingBuffer(skel.maps.events, "event") as events:
    ...         for event in events:
    ...             print(event.pid, event.comm, skel.bss.seen)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from bpfseal.bpf.uapi import KeyringId, MapFlag
from bpfseal.bundle.model import Bundle
from bpfseal.bundle.reading import bundle_of, read_bundle_file
from bpfseal.errors import CapabilityError, UsageError
from bpfseal.kernel.choose import AUTO, load_bundle
from bpfseal.kernel.load import HostValues, LoadedSkeleton
from bpfseal.kernel.pinning import LINKS, MAPS, PROGRAMS, pin_all
from bpfseal.kernel.protocol import MapKernel
from bpfseal.loader.model import Loader
from bpfseal.scheme import UNSIGNED
from bpfseal.skeleton.arguments import MissingArgumentError
from bpfseal.skeleton.attach import how_to_attach, uncovered
from bpfseal.skeleton.closing import Closing
from bpfseal.skeleton.description import Description, is_read_only
from bpfseal.skeleton.handle import Handle
from bpfseal.skeleton.links import Link
from bpfseal.skeleton.maps import Map
from bpfseal.skeleton.programs import Program
from bpfseal.skeleton.sections import Section
from bpfseal.skeleton.values import Codec

V = TypeVar("V")

_MAX_ENTRIES = (1 << 32) - 1


class Named(Mapping[str, V], Generic[V]):
    """Things by name and as attributes; one that is called like a method of mappings by name."""

    def __init__(self, kind: str, things: Mapping[str, V]) -> None:
        self._kind = kind
        self._things = things

    def __getitem__(self, name: str) -> V:
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def __getattr__(self, name: str) -> V:
        if name.startswith("_") or name not in self._things:
            have = ", ".join(self._things) or "none"
            raise AttributeError(f"no {self._kind} {name!r}; there are: {have}")
        return self._things[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._things]

    def __repr__(self) -> str:
        return f"<{self._kind}s: {', '.join(self._things) or 'none'}>"


class Skeleton(Closing):
    """What `load` returns. Close it, or use it as a context manager.

    Attributes:
        kernel: where it is loaded.
        scheme: the scheme of the loader that was taken.
        maps: the maps, by name.
        programs: the programs, by name.
        sections: global data that is mapped into memory, by the map's name: ``rodata``, ``bss``,
            ``data``. They are attributes of the skeleton, too.
    """

    def __init__(self, kernel: MapKernel, loaded: LoadedSkeleton) -> None:
        self.kernel = kernel
        loader = replace(loaded.signed.loader, maps=loaded.maps)
        self.scheme = loader.scheme_name
        self._description = Description(loader)
        self._open = ExitStack()
        self._is_closed = False
        self._loader = loader
        self._maps = self._handles("map", loaded.map_fds)
        programs = self._handles("program", loaded.prog_fds)
        self.programs = Named(
            "program",
            {
                entry.name: Program(
                    kernel,
                    programs[entry.name],
                    entry,
                    # whoever loads what nobody signed has said so
                    trust_sections=loader.scheme is UNSIGNED,
                )
                for entry in loader.programs
            },
        )

    def _handles(self, kind: str, fds: Mapping[str, int]) -> dict[str, Handle]:
        """Take over fds, which end with the skeleton."""
        return {
            name: self._open.enter_context(Handle(self.kernel, fd, f"{kind} {name}"))
            for name, fd in fds.items()
        }

    @property
    def map_fds(self) -> dict[str, int]:
        """The fds of the maps, by name.

        Raises:
            UsageError: the skeleton is closed; so does every operation of it, but `close`.
        """
        return {name: handle.fd for name, handle in self._maps.items()}

    @property
    def prog_fds(self) -> dict[str, int]:
        """The fds of the programs, by name."""
        return {name: program.fd for name, program in self.programs.items()}

    @cached_property
    def maps(self) -> Named[Map]:
        """The maps, by name."""
        told = self._description
        return Named(
            "map",
            {
                entry.ident: Map(self.kernel, self._maps[entry.ident], entry, told.map_types(index))
                for index, entry in enumerate(self._loader.maps)
            },
        )

    @cached_property
    def sections(self) -> Named[Section]:
        """Global data that is mapped into memory, by the map's name."""
        found: dict[str, Section] = {}
        for index, entry in enumerate(self._loader.maps):
            if not entry.has_initial_value or not entry.flags & MapFlag.MMAPABLE:
                continue
            variables = self._description.variables(index)
            handle, read_only = self._maps[entry.ident], is_read_only(entry)
            memory = self.kernel.map_memory(handle.fd, 0, entry.value_size, writable=not read_only)
            self._open.callback(memory.close)
            found[entry.ident] = Section(
                entry.ident, handle, memory, variables, read_only=read_only
            )
        return Named("section", found)

    def __getattr__(self, name: str) -> Section:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self.sections:
            raise AttributeError(f"no {name!r}; sections are: {', '.join(self.sections) or 'none'}")
        return self.sections[name]

    def codec(self, name: str) -> Codec:
        """Return the codec of a struct, union, enum or typedef of the object.

        Raises:
            UsageError: the object has no such type.
        """
        return self._description.named(name)

    # Links.

    @property
    def links(self) -> tuple[Link, ...]:
        """The links that are open."""
        programs = self.programs.values()
        return tuple(link for program in programs for link in program.links if link.is_open)

    def attach(self, *, trust_sections: bool = False) -> tuple[Link, ...]:
        """Attach every program whose section says to what; others are passed over.

        So does ``NAME__attach`` of the reference tool's skeletons. The sections of kprobes,
        uprobes, tracepoints and raw tracepoints are in the bundle's config only, which no signature
        covers: whoever changes it attaches a signed program elsewhere, or not at all. They are
        believed only if that is asked for, or if the loader is of the scheme ``unsigned``; or such
        programs are attached one by one before.

        Args:
            trust_sections: believe them.

        Returns:
            The new links.

        Raises:
            UncoveredError: a program's attach point is not covered; nothing is attached then.
            CapabilityError: this machine has no such tracepoint or file.
            KernelError: the kernel refused. What was attached before is detached again.
        """
        self._require_open()
        programs = self.programs.values()
        by_hand = {p.name for p in programs if any(link.is_open for link in p.links)}
        open_points = [p for p in programs if not (p.attach_point_is_covered or trust_sections)]
        if left := [p.entry for p in open_points if p.name not in by_hand]:
            raise uncovered(left)
        made: list[Link] = []
        with ExitStack() as failed:
            for program in programs:
                row = how_to_attach(program.entry.type, program.entry.attach_type)
                if row is None or program in open_points:
                    continue
                with suppress(MissingArgumentError):
                    made.append(program.attach(trust_sections=trust_sections))
                    failed.callback(made[-1].close)
            failed.pop_all()
        return tuple(made)

    def detach(self) -> None:
        """Close every link."""
        for link in self.links:
            link.close()

    # Pins.

    def pin(self, directory: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Pin maps, programs and open links below a directory of bpffs, and return the paths.

        They become ``maps/NAME``, ``programs/NAME`` and ``links/NAME``, and stay when this process
        ends; a second link of a program is ``links/NAME_1``.

        Raises:
            CapabilityError: the directory cannot be made, or is in no bpffs.
            KernelError: something is pinned there already. Nothing stays then.
        """
        self._require_open()
        links = {
            program.name + (f"_{number}" if number else ""): link.fileno()
            for program in self.programs.values()
            for number, link in enumerate(link for link in program.links if link.is_open)
        }
        folders = {MAPS: self.map_fds, PROGRAMS: self.prog_fds} | ({LINKS: links} if links else {})
        return pin_all(self.kernel, folders, Path(directory))

    # The end.

    def _require_open(self) -> None:
        if self._is_closed:
            raise UsageError(f"the skeleton {self._loader.name} is closed")

    def close(self) -> None:
        """Close links, memory, programs and maps; a second time does nothing."""
        self._is_closed = True
        try:
            self.detach()
        finally:
            self._open.close()

    def __repr__(self) -> str:
        return f"<skeleton {self._loader.name}: {self.maps!r}, {self.programs!r}>"


def load(
    bundle: Bundle | str | os.PathLike[str] | bytes | bytearray | memoryview,
    kernel: MapKernel | None = None,
    *,
    scheme: str = AUTO,
    keyring_id: int = KeyringId.SESSION,
    rodata: Mapping[str, object] | None = None,
    max_entries: Mapping[str, int] | None = None,
) -> Skeleton:
    """Load a bundle and return its skeleton.

    Args:
        bundle: a bundle, the path of one, or its bytes.
        kernel: where to load it; the running kernel by default.
        scheme: the variant to load; ``auto`` is the one that the kernel takes. Only ``unsigned``
            loads without a signature.
        keyring_id: where the kernel looks for the signer's key.
        rodata: values for read-only variables, by name, in place of those in the object.
        max_entries: sizes of maps, by name, in place of those in the object.

    Raises:
        InputError: the bundle cannot be read.
        UsageError: the bundle has no such variant; there is no such variable or map; or the host
            sets values where the signature fixes them.
        VerificationError: it is not signed and ``unsigned`` was not asked for, or the metadata is
            not what the signed instructions vouch for.
        CapabilityError: the machine or the kernel cannot do it.
        KernelError: the kernel refused. Nothing stays behind.
    """
    if kernel is None:
        from bpfseal.kernel.linux.kernel import LinuxKernel  # ctypes, for the running kernel only

        kernel = LinuxKernel()
    chosen = _bundle(bundle)
    values = None
    if rodata or max_entries:
        values = _host_values(chosen.variants[0].loader, rodata or {}, max_entries or {})
    loaded = load_bundle(kernel, chosen, scheme=scheme, keyring_id=keyring_id, host_values=values)
    return Skeleton(kernel, loaded)


def read(given: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Bundle:
    """Read a bundle, to verify it and then to load that very value: see `load`.

    Args:
        given: the path of a bundle (one file, a directory, or a C light skeleton), or the bytes of
            such a file.

    Raises:
        InputError: it cannot be read, is no bundle, or could be taken for two things at once.
        VerificationError: a light skeleton with a digest that is not that of its parts.
    """
    if isinstance(given, bytes | bytearray | memoryview):
        return bundle_of(bytes(given), "bundle")
    return read_bundle_file(given)


def _bundle(given: Bundle | str | os.PathLike[str] | bytes | bytearray | memoryview) -> Bundle:
    chosen = given if isinstance(given, Bundle) else read(given)
    if not chosen.variants:
        raise UsageError("the bundle holds no loader")
    byteorder = chosen.variants[0].loader.byteorder
    if byteorder != sys.byteorder:
        raise CapabilityError(f"the bundle is for {byteorder}-endian machines")
    return chosen


def _host_values(
    loader: Loader, rodata: Mapping[str, object], max_entries: Mapping[str, int]
) -> HostValues:
    known = [entry.ident for entry in loader.maps]
    for name, size in max_entries.items():
        if name not in known:
            raise UsageError(f"no map {name!r}", hint=f"there are: {', '.join(known)}")
        if not 0 < size <= _MAX_ENTRIES:
            raise UsageError(f"map {name} cannot have {size} entries")
    return HostValues(Description(loader).with_values(rodata), dict(max_entries))
