"""What a loader does, as tests ask for it."""

from __future__ import annotations

from bpfseal.bpf.insn import Insn, decode_insns
from bpfseal.bpf.uapi import Cmd
from bpfseal.loader.model import Loader

from .following import Call, Command, LoaderReading, Value, read_loader

__all__ = ["Value", "blob", "commands", "helper_calls", "only", "program_insns", "reading"]


def reading(loader: Loader) -> LoaderReading:
    """Read a loader back."""
    return read_loader(loader.insns, loader.metadata, loader.byteorder)


def helper_calls(loader: Loader) -> list[Call]:
    """Return every call of a helper in the order of the instructions."""
    return list(reading(loader).calls.values())


def commands(loader: Loader) -> list[Command]:
    """Return the bpf() commands of a loader in order."""
    return list(reading(loader).commands)


def only(loader: Loader, command: Cmd) -> Command:
    """Return the one bpf() command of a kind."""
    (found,) = [entry for entry in commands(loader) if entry.command is command]
    return found


def blob(loader: Loader, command: Command, name: str, size: int) -> bytes:
    """Return the bytes of the metadata that a pointer of an attribute leads to."""
    return reading(loader).blob(command, name, size)


def program_insns(loader: Loader, number: int = 0) -> list[Insn]:
    """Return the instructions of a program that the loader loads, before it relocates them."""
    read = reading(loader)
    load = [entry for entry in read.commands if entry.command is Cmd.PROG_LOAD][number]
    raw = read.blob(load, "insns", 8 * load.fields["insn_cnt"])
    return decode_insns(raw, loader.byteorder)
