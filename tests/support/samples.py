"""Objects that use everything at once, for fuzzing and for comparing byte orders."""

from __future__ import annotations

from bpfseal.bpf.insn import ByteOrder, exit_insn, mov64_imm
from bpfseal.bpf.uapi import MapType
from bpfseal.btf.kinds import Kind
from support.elf_writer import STV_HIDDEN
from support.object_writer import RETURN_0, ObjectWriter, call, load


def everything(byteorder: ByteOrder = "little") -> ObjectWriter:
    """An object with every kind of map, data, extern and reference."""
    writer = ObjectWriter(byteorder)
    writer.add_map("table", type=MapType.HASH, max_entries=9, key=1, value=1)
    writer.add_map("events", type=MapType.RINGBUF, max_entries=5000)
    inner = writer.members(type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    writer.add_map("inner", type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    writer.add_outer_map("outer", inner, {0: "inner", 2: "inner"})
    for section in (".data", ".rodata", ".bss", ".data.custom"):
        writer.add_variable(f"in{section.replace('.', '_')}", section, b"\1\2\3\4\5\6\7\10")
    writer.add_variable("hidden", ".data", bytes(4), visibility=STV_HIDDEN)
    writer.add_kconfig("LINUX_KERNEL_VERSION", writer.int_id, 4)
    writer.add_kconfig("CONFIG_HZ", writer.int_id, 4, weak=True)
    writer.add_ksym("jiffies", weak=True)
    writer.add_ksym("runqueues", writer.btf.add_struct("rq", 8, []))
    writer.add_kfunc("bpf_kfunc")
    writer.add_kfunc("bpf_maybe", weak=True)
    writer.add_subprogram("leaf", [*load(1, "in_data"), *RETURN_0])
    writer.add_subprogram("middle", [call("leaf"), *RETURN_0], visibility=STV_HIDDEN)
    names = ("table", "outer", "in_rodata", "in_bss", "jiffies", "runqueues", "CONFIG_HZ", "leaf")
    code = [insn for name in names for insn in load(1, name)]
    calls = [call(name) for name in ("middle", "bpf_kfunc", "bpf_maybe", "bpf_kfunc")]
    functions = {
        ".text": [(0, "leaf"), (32, "middle")],
        "lsm/file_open": [(0, "main")],
        "?xdp": [(0, "optional")],
    }
    writer.add_program("lsm/file_open", "main", [*code, *calls, mov64_imm(0, 0), exit_insn()])
    writer.add_program("?xdp", "optional")
    for section, places in functions.items():
        rows: list[tuple[int, ...]] = [(offset, writer.add_func(name)) for offset, name in places]
        writer.func_info[section] = rows
        line = writer.btf.string("int x;")
        writer.line_info[section] = [(offset, line, line, 1 << 10) for offset, _ in places]
    writer.core_relos["lsm/file_open"] = [(0, 1, line, 0), (16, 1, line, 0)]
    writer.btf.add_modifier(Kind.CONST, writer.int_id)
    return writer
