"""From an ELF file to a `BpfObject`."""

from bpfseal.object.reader import object_name, read_object

__all__ = ["object_name", "read_object"]
