"""Skeleton objects: loaded bundles, their maps, global variables, programs, links and readers."""

from bpfseal.skeleton.arguments import UncoveredError
from bpfseal.skeleton.links import Link
from bpfseal.skeleton.maps import Map
from bpfseal.skeleton.perf_buffer import PerfBuffer, PerfSample
from bpfseal.skeleton.programs import Program
from bpfseal.skeleton.records import Record
from bpfseal.skeleton.ring_buffer import RingBuffer
from bpfseal.skeleton.sections import Section
from bpfseal.skeleton.skeleton import Skeleton, load
from bpfseal.skeleton.values import EnumValue

__all__ = [
    "EnumValue",
    "Link",
    "Map",
    "PerfBuffer",
    "PerfSample",
    "Program",
    "Record",
    "RingBuffer",
    "Section",
    "Skeleton",
    "UncoveredError",
    "load",
]
