"""Write light skeletons in the form in which the reference tool does, as far as it matters."""

from __future__ import annotations

from collections.abc import Mapping

from bpfseal.bundle.model import SignedLoader

from .following import read_loader

_PER_LINE = 19


def array(name: str, data: bytes) -> str:
    """Return the declaration of a blob."""
    escapes = ["\\0" if byte == 0 else f"\\x{byte:02x}" for byte in data]
    rows = ["".join(escapes[at : at + _PER_LINE]) for at in range(0, len(data), _PER_LINE)]
    body = "\\\n".join(rows)
    return f'static const char {name}[] __attribute__((__aligned__(8))) = "\\\n{body}";\n'


def header_of(
    signed: SignedLoader,
    *,
    replaced: Mapping[str, bytes] | None = None,
    tracepoints: Mapping[str, str] | None = None,
) -> str:
    """Return the header of a loader, with some of its blobs replaced."""
    loader, name = signed.loader, signed.loader.name
    groups = {
        "maps": [f"struct bpf_map_desc {entry.ident};" for entry in loader.maps],
        "progs": [f"struct bpf_prog_desc {entry.name};" for entry in loader.programs],
        "links": [f"int {entry.name}_fd;" for entry in loader.programs],
    }
    data = [entry.ident for entry in loader.maps if entry.has_initial_value]
    blobs = {"opts_data": loader.metadata, "opts_insn": loader.insns}
    if signed.signatures:
        blobs["opts_sig"] = signed.signatures[0].cms
        blobs["opts_excl_hash"] = loader.excl_prog_hash
    blobs |= replaced or {}
    reading = read_loader(loader.insns, loader.metadata, loader.byteorder)
    made = {
        entry.ident: command for entry, command in zip(loader.maps, reading.maps(), strict=True)
    }
    lines = ["/* a light skeleton */", f"#ifndef {name.upper()}", f"#define {name.upper()}"]
    lines += [f"struct {name} {{", "\tstruct bpf_loader_ctx ctx;"]
    for group, members in groups.items():
        if members:
            lines += ["\tstruct {", *(f"\t\t{member}" for member in members), f"\t}} {group};"]
    if signed.signatures:
        lines.append("\t__s32 keyring_id;")
    for ident in data:
        lines.append(f"\tstruct {name}__{ident} {{ struct {{ int one; }} inner; }} *{ident};")
    lines.append("};")
    for program in loader.programs:
        tracepoint = (tracepoints or {}).get(program.name)
        argument = f'"{tracepoint}"' if tracepoint else "NULL"
        lines += [
            f"static inline int {name}__{program.name}__attach(struct {name} *skel) {{",
            f"\tint fd = skel_raw_tracepoint_open({argument}, 3);",
            "}",
        ]
    lines.append(f"static inline struct {name} *{name}__open(void) {{")
    for ident in data:
        value = (replaced or {}).get(f"data {ident}", reading.initial_value(made[ident]) or b"")
        blobs.pop(f"data {ident}", None)
        lines += [array("data", value), f"\tskel->{ident} = skel_prep_map_data((void *)data);"]
    lines += ["}", f"static inline int {name}__load(struct {name} *skel) {{"]
    lines += [array(blob, content) for blob, content in blobs.items()]
    lines += ["}", "#endif", ""]
    return "\n".join(lines)
