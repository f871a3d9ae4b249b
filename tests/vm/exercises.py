"""What a guest does with skeleton objects: attach, make something happen, read it back.

Each exercise loads a bundle from a folder and returns what it saw. An exception is a failure; only
the standard library and bpfseal are there.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import bpfseal
from bpfseal.errors import BpfsealError, UsageError
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.skeleton import PerfBuffer, RingBuffer, Skeleton

CGROUPS = Path("/sys/fs/cgroup")
BPFFS = Path("/sys/fs/bpf")
WAIT = 20.0


class Event(NamedTuple):
    """``struct event`` of examples/exectrace.bpf.c."""

    pid: int
    parent: int
    lifetime_ns: int
    comm: str

    @classmethod
    def decode(cls, data: bytes) -> Event:
        pid, parent, lifetime_ns, comm = struct.unpack("=IIQ16s", data)
        return cls(pid, parent, lifetime_ns, comm.split(b"\0", 1)[0].decode())


def run_child() -> int:
    """Run a short program and return its pid."""
    with subprocess.Popen(["/bin/busybox", "true"]) as child:
        child.wait()
    return child.pid


def send_udp(port: int, count: int = 1) -> int:
    """Send packets to this machine and return how many were let through."""
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(count):
            try:
                sender.sendto(b"hello", ("127.0.0.1", port))
            except PermissionError:
                continue
            sent += 1
    return sent


def make_directory() -> None:
    path = Path("/tmp/made")  # noqa: S108 - the guest has no other user
    path.mkdir()
    path.rmdir()


def load(folder: Path, name: str, **options: Any) -> Skeleton:
    return bpfseal.load(folder / f"{name}.bpfseal", **options)


def tracing(folder: Path) -> dict[str, Any]:
    """tp_btf programs, a hash map, a ring buffer, global variables."""
    with load(folder, "exectrace") as skel:
        links = skel.attach()
        with RingBuffer(skel.maps.events, Event.decode) as events:
            pid = run_child()
            mine: list[Event] = []
            while not any(event.pid == pid for event in mine):
                assert events.poll(mine.append, WAIT), "no event came"
        event = next(event for event in mine if event.pid == pid)
        assert event.comm == "busybox", event
        assert event.parent == os.getpid()
        assert event.lifetime_ns > 0
        assert pid not in skel.maps.started
        assert skel.bss.seen >= 1
        assert skel.bss.lost == 0
        before = skel.bss.seen
        skel.detach()
        run_child()
        assert skel.bss.seen == before, "a detached program still counts"
        return {
            "scheme": skel.scheme,
            "links": len(links),
            "comm": event.comm,
            "lifetime_us": event.lifetime_ns // 1000,
            "seen": before,
        }


def ring_buffer_async(folder: Path) -> dict[str, Any]:
    """The same ring buffer by asyncio, with another task that makes the events."""

    async def collect(skel: Skeleton) -> list[str]:
        seen: list[str] = []

        async def act() -> None:
            for _ in range(3):
                await asyncio.sleep(0.05)
                await asyncio.to_thread(run_child)

        task = asyncio.create_task(act())
        with RingBuffer(skel.maps.events, Event.decode) as events:
            async for event in events:
                if event.comm == "busybox":
                    seen.append(event.comm)
                if len(seen) == 3:
                    break
        await task
        return seen

    with load(folder, "exectrace") as skel:
        skel.attach()
        return {"seen": asyncio.run(asyncio.wait_for(collect(skel), WAIT))}


def xdp(folder: Path) -> dict[str, Any]:
    """Packets counted in a per-CPU map; where the host may set values, one protocol dropped."""
    with load(folder, "xdpcount") as skel:
        assert skel.rodata.dropped_protocol == 255
        before = sum(skel.maps.packets[socket.IPPROTO_UDP])
        with skel.programs.count.attach(interface="lo"):
            send_udp(4000, count=5)
            counted = sum(skel.maps.packets[socket.IPPROTO_UDP]) - before
        send_udp(4000)
        after = sum(skel.maps.packets[socket.IPPROTO_UDP]) - before
        scheme = skel.scheme
    assert (counted, after) == (5, 5)
    return {"scheme": scheme, "counted": counted, "dropped": dropped(folder)}


def dropped(folder: Path) -> str:
    """Drop UDP by a read-only variable that is set before the load."""
    try:
        skel = load(folder, "xdpcount", rodata={"dropped_protocol": socket.IPPROTO_UDP})
    except UsageError as error:
        return error.message
    with skel, skel.programs.count.attach(interface="lo"), receiver() as receive:
        send_udp(4001)
        assert receive() is None, "the packet was not dropped"
        skel.data_switch.enabled = 0
        send_udp(4001)
        assert receive() == b"hello", "the switch does not work"
    return "dropped until the switch was turned off"


@contextmanager
def receiver() -> Iterator[Callable[[], bytes | None]]:
    """Give a function that returns the next packet to port 4001, if one comes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 4001))
        sock.settimeout(1)

        def receive() -> bytes | None:
            try:
                return sock.recv(100)
            except TimeoutError:
                return None

        yield receive


def cgroup(folder: Path) -> dict[str, Any]:
    """Packets of a cgroup counted and refused, and its reads of sysctls in a ring buffer."""
    group = CGROUPS / "gate"
    group.mkdir(exist_ok=True)
    with load(folder, "cgroupgate") as skel:
        skel.bss.closed_port = 4003
        skel.programs.on_egress.attach(cgroup=group)
        skel.programs.on_sysctl.attach(cgroup=str(group))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        try:
            passed = send_udp(4002, count=3)
            refused = 2 - send_udp(4003, count=2)
            Path("/proc/sys/kernel/ostype").read_text()
        finally:
            (CGROUPS / "cgroup.procs").write_text(str(os.getpid()))
        by_port = {port: dict(traffic) for port, traffic in skel.maps.by_port.items()}
        with RingBuffer(skel.maps.accesses, "access") as accesses:
            names = [(access.name, access.is_write) for access in accesses.read()]
        scheme = skel.scheme
    group.rmdir()
    assert (passed, refused) == (3, 2)
    assert by_port[4002] == {"packets": 3, "bytes": 3 * 33, "refused": 0}
    assert by_port[4003]["refused"] == 2
    assert ("kernel/ostype", False) in names, names
    return {"scheme": scheme, "by_port": by_port, "accesses": names}


def probes(folder: Path) -> dict[str, Any]:
    """One call seen by every kind of probe, and samples in a perf buffer."""
    libc = re.search(r"/\S*/libc\.so\.6", Path("/proc/self/maps").read_text())
    assert libc
    where = {"path": libc[0], "function": "mkdir"}
    attached: dict[str, str] = {}
    with load(folder, "probes") as skel, PerfBuffer(skel.maps.samples, "sample") as samples:
        skel.bss.target = os.getpid()
        for program in skel.programs.values():
            arguments = where if program.name in ("on_uprobe", "on_uretprobe") else {}
            try:
                program.attach(trust_sections=True, **arguments)
            except BpfsealError as error:
                attached[program.name] = str(error)
            else:
                attached[program.name] = ""
        make_directory()
        hits = dict(skel.maps.hits)
        seen = [sample.value for sample in samples.read()]
        assert samples.lost == 0
    assert seen
    places = [sample.place.name for sample in seen]
    assert {sample.pid for sample in seen} == {os.getpid()}
    for number, (name, why) in enumerate(attached.items()):
        assert hits[number] == (0 if why else 1), (name, hits, attached)
    assert len(places) == sum(hits.values())
    return {
        "attached": [name for name, why in attached.items() if not why],
        "not": {name: why for name, why in attached.items() if why},
        "places": places,
        "comm": seen[0].comm,
    }


def multiple_probes(folder: Path) -> dict[str, Any]:
    """One link for many functions of the kernel, and one for those of a library."""
    libc = re.search(r"/\S*/libc\.so\.6", Path("/proc/self/maps").read_text())
    assert libc
    with load(folder, "multiprobe") as skel:
        skel.bss.target = os.getpid()
        skel.programs.on_kernel.attach(trust_sections=True)
        skel.programs.on_user.attach(path=libc[0], functions=["mkdir", "rmdir"])
        make_directory()
        answer = dict(skel.bss)
    assert answer["kernel_calls"] >= 2
    assert answer["user_calls"] == 2
    return answer


def iterators(folder: Path) -> dict[str, Any]:
    """All tasks as a file, and the elements of one map."""
    with load(folder, "tasklist") as skel:
        with skel.programs.list_tasks.attach() as link:
            tasks = dict(line.split(" ", 1) for line in link.read().splitlines())
            with link.open() as output:
                first = next(output)
        skel.maps.squares.update(3, 9)
        skel.maps.squares[4] = 16
        elements = skel.programs.list_squares.attach(map=skel.maps.squares).read()
    assert tasks[str(os.getpid())].startswith("python"), tasks
    assert first.startswith("1 ")
    assert sorted(elements.splitlines()) == ["3 9", "4 16"]
    return {"tasks": len(tasks), "first": first.strip(), "squares": elements.splitlines()}


def pins(folder: Path) -> dict[str, Any]:
    """A pinned program goes on when its skeleton is closed."""
    root = BPFFS / "exectrace"
    kernel = LinuxKernel()
    with load(folder, "exectrace") as skel:
        skel.attach()
        paths = skel.pin(root)
        entry = skel.maps.started.entry
        before = skel.bss.seen
    run_child()
    fd = kernel.open_pinned(str(root / "maps" / "bss"))
    value = kernel.map_lookup(fd, bytes(4), 16)
    kernel.close(fd)
    assert value
    counted = struct.unpack("=QQ", value)[0] - before
    for path in paths:
        path.unlink()
    for folder_of_pins in (root / "maps", root / "programs", root / "links", root):
        folder_of_pins.rmdir()
    assert counted == 1, counted
    return {"pinned": [str(path.relative_to(root)) for path in paths], "key": entry.key_size}


def network(folder: Path) -> dict[str, Any]:
    """tcx, netfilter and sk_lookup see the same packets."""
    with load(folder, "netwatch") as skel:
        skel.bss.port = 4004
        skel.programs.on_ingress.attach(interface="lo")
        skel.programs.on_egress.attach(interface="lo")
        skel.programs.on_lookup.attach()
        skel.programs.on_packet.attach(hook=3)  # NF_INET_LOCAL_OUT
        send_udp(4004, count=4)
        seen = skel.bss.seen
    assert seen[0] == seen[1] == seen[3] == 4, seen
    assert seen[2] >= 4
    return {"seen": list(seen)}


def security_hook(folder: Path) -> dict[str, Any]:
    """A security hook refuses what it is told to, as long as it is attached."""
    with load(folder, "guard") as skel:
        skel.bss.target = os.getpid()
        with skel.programs.on_mkdir.attach():
            try:
                make_directory()
            except PermissionError:
                refused = True
            else:
                refused = False
        denied = skel.bss.denied
    make_directory()
    return {"refused": refused, "denied": denied}


def programs_run(folder: Path) -> dict[str, Any]:
    """Programs that are run, not attached; maps of many kinds on this kernel."""
    with load(folder, "maplab") as skel, RingBuffer(skel.maps.messages, "message") as messages:
        assert skel.programs.send.run(ctx=struct.pack("=II", 6, 3)).retval == 0
        numbers = [message.number for message in messages.read()]
        with PerfBuffer(skel.maps.samples, "message") as samples:
            kept = skel.programs.keep.run(bytes(100)).retval
            texts = [sample.value.text for sample in samples.read()]
        skel.maps.shapes[1] = {"name": "box", "color": "GREEN", "layer": -2}
        shape = skel.maps.shapes[1]
        maps = len(skel.maps)
    assert numbers == [2, 3, 5, 6]
    assert (kept, texts) == (64, ["hello"])
    assert (shape.name, shape.color.name, shape.layer) == ("box", "GREEN", -2)
    return {"numbers": numbers, "kept": kept, "maps": maps}


EXERCISES: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    exercise.__name__: exercise
    for exercise in (
        tracing,
        ring_buffer_async,
        xdp,
        cgroup,
        probes,
        multiple_probes,
        iterators,
        pins,
        network,
        security_hook,
        programs_run,
    )
}
"""What there is, by name."""
