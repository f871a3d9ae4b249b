r"""A C header that embeds a bundle and loads it.

It can be included where a light skeleton of the reference tool was: the struct, its members and
the functions have the same names. What is the same in all headers is in
`bpfseal.bundle.skeleton_runtime`.

Example:
    >>> print(_string(b"\0\1\xff", "\t"))
        "\0\x01\xff"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from bpfseal import __version__
from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.bundle.derivation import open_attach_point
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.skeleton_runtime import RUNTIME
from bpfseal.bundle.skeleton_variants import GlobalData, chosen_variants, global_data
from bpfseal.errors import InputError
from bpfseal.loader.model import Loader, ProgramEntry
from bpfseal.scheme import Scheme

_BYTES_IN_LINE: Final = 20
_TRACEPOINT: Final = re.compile(r"[A-Za-z0-9_]+")
_RAW_TRACEPOINTS: Final = (ProgType.RAW_TRACEPOINT, ProgType.RAW_TRACEPOINT_WRITABLE)
_ESCAPES: Final = tuple("\\0" if number == 0 else f"\\x{number:02x}" for number in range(256))
_FAILED: Final = "failed:"
_GUARD: Final = (
    (
        "#ifdef BPFSEAL_TRUST_SECTIONS",
        "/* No signature covers the name of the tracepoint: only the bundle's config says it. */",
    ),
    ("#else", "(void)prog_fd;", "fd = -EPERM;", "#endif"),
)
"""Around an attach that only an unsigned section says: the program's author has to ask for it."""
_NOT_ATTACHED: Final = "0; /* no automatic attach for this program type */"


def c_skeleton(bundle: Bundle, *, unsigned: bool = False) -> str:
    """Return the header; the same bundle gives the same text.

    Args:
        bundle: its signed variants are embedded; or, with `unsigned`, the one of scheme
            ``unsigned``.
        unsigned: the header loads what nobody signed, and says so.

    Raises:
        UsageError: no variant is signed that should be, or the other way round.
        VerificationError: the metadata is not what the signed instructions vouch for.
        InputError: what cannot be expressed in C, or contradicts itself.
    """
    variants = chosen_variants(bundle, unsigned=unsigned)
    return "".join(f"{line}\n" for line in _Header(bundle.name, variants).lines())


class _Header:
    """The parts of one header, each as lines."""

    def __init__(self, name: str, variants: Sequence[SignedLoader]) -> None:
        self.name = name
        self.variants = variants
        self.loader: Loader = variants[0].loader
        self.is_signed = bool(variants[0].signatures)
        self.data = global_data(variants[0])
        self._blobs: dict[bytes, str] = {}

    def lines(self) -> Iterator[str]:
        """Yield the lines of the header."""
        guard = f"BPFSEAL_{self.name.upper()}_SKEL_H"
        schemes = ", ".join(variant.loader.scheme_name for variant in self.variants)
        yield f"/* {self.name}: made by bpfseal {__version__}, do not edit. Schemes: {schemes}. */"
        if not self.is_signed:
            yield "/* UNSIGNED: nobody checks what this skeleton loads. */"
        yield f"#ifndef {guard}"
        yield f"#define {guard}"
        yield ""
        yield from RUNTIME.splitlines()
        yield ""
        yield from self._byteorder()
        yield from self._struct()
        yield from self._asserts()
        for entry in self.loader.programs:
            yield from self._attach_one(entry)
        yield from self._attach()
        yield from self._detach()
        yield from self._destroy()
        for data in self.data:
            yield from self._initial_value(data)
        yield from self._open()
        yield from self._load()
        yield from self._open_and_load()
        yield f"#endif /* {guard} */"

    def _byteorder(self) -> Iterator[str]:
        order = self.loader.byteorder
        yield f"#if __BYTE_ORDER__ != __ORDER_{order.upper()}_ENDIAN__"
        yield f'#error "this skeleton is for {order}-endian machines"'
        yield "#endif"
        yield ""

    def _struct(self) -> Iterator[str]:
        loader = self.loader
        for data in self.data:
            yield f"struct {self.name}__{data.entry.ident} {{"
            yield from (f"\t{declaration};" for declaration in _members(data))
            yield "};"
            yield ""
        yield f"struct {self.name} {{"
        yield "\tstruct bpf_loader_ctx ctx;"
        maps = [f"struct bpf_map_desc {entry.ident}" for entry in loader.maps]
        programs = [f"struct bpf_prog_desc {entry.name}" for entry in loader.programs]
        links = [f"int {entry.name}_fd" for entry in loader.programs]
        for group, members in (("maps", maps), ("progs", programs), ("links", links)):
            if members:
                yield "\tstruct {"
                yield from (f"\t\t{member};" for member in members)
                yield f"\t}} {group};"
        if self.is_signed:
            yield "\t__s32 keyring_id;"
        for data in self.data:
            yield f"\tstruct {self.name}__{data.entry.ident} *{data.entry.ident};"
        yield "};"
        yield ""

    def _asserts(self) -> Iterator[str]:
        for data in self.data:
            struct = f"struct {self.name}__{data.entry.ident}"
            for variable in data.variables or ():
                member = f"(({struct} *)0)->{variable.name}"
                yield f"BPFSEAL_ASSERT(sizeof({member}) == {variable.size} &&"
                yield f"\toffsetof({struct}, {variable.name}) == {variable.offset},"
                yield f'\t"{variable.name} lies elsewhere");'
        yield ""

    def _function(self, result: str, function: str, arguments: str, *body: str) -> Iterator[str]:
        yield f"static inline {result}{self.name}__{function}({arguments})"
        yield "{"
        for line in body:
            is_flush = not line or line == _FAILED or line.startswith("#")
            yield line if is_flush else f"\t{line}"
        yield "}"
        yield ""

    @property
    def _self(self) -> str:
        return f"struct {self.name} *skel"

    def _attach_one(self, entry: ProgramEntry) -> Iterator[str]:
        call = _attach_call(entry)
        is_open = self.is_signed and open_attach_point(entry)
        guard_begin, guard_end = _GUARD if is_open else ((), ())
        body = [f"int fd = {_NOT_ATTACHED}", "", "(void)skel;", "return fd;"]
        if call or (is_open and entry.type in _RAW_TRACEPOINTS):
            attaching = [f"fd = bpfseal_error({call});"] if call else ["(void)prog_fd;", "fd = 0;"]
            body = [
                f"int prog_fd = skel->progs.{entry.name}.prog_fd;",
                "int fd;",
                "",
                *guard_begin,
                *attaching,
                *guard_end,
                "if (fd > 0)",
                f"\tskel->links.{entry.name}_fd = fd;",
                "return fd;",
            ]
        yield from self._function("int ", f"{entry.name}__attach", self._self, *body)

    def _attach(self) -> Iterator[str]:
        calls = [
            f"ret = ret < 0 ? ret : {self.name}__{entry.name}__attach(skel);"
            for entry in self.loader.programs
        ]
        body = ["int ret = 0;", "", *calls, "(void)skel;", "return ret < 0 ? ret : 0;"]
        yield from self._function("int ", "attach", self._self, *body)

    def _detach(self) -> Iterator[str]:
        body = []
        for entry in self.loader.programs:
            link = f"skel->links.{entry.name}_fd"
            body += [f"skel_closenz({link});", f"{link} = 0;"]
        yield from self._function("void ", "detach", self._self, *body, "(void)skel;")

    def _destroy(self) -> Iterator[str]:
        loader = self.loader
        body = ["if (!skel)", "\treturn;", f"{self.name}__detach(skel);"]
        body += [f"skel_closenz(skel->progs.{entry.name}.prog_fd);" for entry in loader.programs]
        for data in self.data:
            ident = data.entry.ident
            body += [
                f"if (skel->{ident})",
                f"\tskel_free_map_data(skel->{ident}, skel->maps.{ident}.initial_value,",
                f"\t\t\t   bpfseal_pages({data.entry.value_size}));",
            ]
        body += [f"skel_closenz(skel->maps.{entry.ident}.map_fd);" for entry in loader.maps]
        yield from self._function("void ", "destroy", self._self, *body, "skel_free(skel);")

    def _initial_value(self, data: GlobalData) -> Iterator[str]:
        yield from self._function(
            "const char *",
            f"{data.entry.ident}__initial_value",
            "void",
            *_array("value", data.initial_value),
            "",
            "return value;",
        )

    def _open(self) -> Iterator[str]:
        name = self.name
        body = [
            f"struct {name} *skel = (struct {name} *)skel_alloc(sizeof(*skel));",
            "int err;",
            "",
            "if (!skel)",
            "\treturn NULL;",
            f"skel->ctx.sz = {self.loader.ctx_size};",
            "err = bpfseal_use_opts(&skel->ctx, opts);",
            "if (err)",
            "\tgoto failed;",
        ]
        if self.data:
            body.append("err = -ENOMEM;")
        for data in self.data:
            ident, size = data.entry.ident, data.entry.value_size
            body += [
                f"skel->{ident} = (struct {name}__{ident} *)skel_prep_map_data(",
                f"\t{name}__{ident}__initial_value(), bpfseal_pages({size}), {size});",
                f"if (!skel->{ident})",
                "\tgoto failed;",
                f"skel->maps.{ident}.initial_value = bpfseal_u64(skel->{ident});",
            ]
        body += ["return skel;", _FAILED, f"{name}__destroy(skel);", "errno = -err;"]
        opts = "const struct bpf_object_open_opts *opts"
        result = f"struct {name} *"
        yield from self._function(result, "open_opts", opts, *body, "return NULL;")
        yield from self._function(result, "open", "void", f"return {name}__open_opts(NULL);")

    def _load(self) -> Iterator[str]:
        rows = [row for variant in self.variants for row in self._attempts(variant)]
        declared = [line for blob, name in self._blobs.items() for line in _array(name, blob)]
        body = [
            *declared,
            "static const struct bpfseal_attempt attempts[] = {",
            *rows,
            "};",
            "bool changed_values = false;",
            "int err;",
            "",
        ]
        body += [
            f"changed_values |= skel->maps.{entry.ident}.max_entries != 0;"
            for entry in self.loader.maps
        ]
        for data in self.data:
            ident, size = data.entry.ident, data.entry.value_size
            initial = f"{self.name}__{ident}__initial_value()"
            body.append(f"changed_values |= memcmp(skel->{ident}, {initial}, {size}) != 0;")
        keyring_id = "skel->keyring_id" if self.is_signed else "0"
        body += [
            "err = bpfseal_load(attempts, sizeof(attempts) / sizeof(attempts[0]), &skel->ctx,",
            f"\t\t   {keyring_id}, changed_values);",
            "if (err < 0)",
            "\treturn err;",
        ]
        for data in self.data:
            ident = data.entry.ident
            protection = "PROT_READ" if data.is_read_only else "PROT_READ | PROT_WRITE"
            body += [
                f"skel->{ident} = (struct {self.name}__{ident} *)skel_finalize_map_data(",
                f"\t(__u64 *)&skel->maps.{ident}.initial_value,",
                f"\tbpfseal_pages({data.entry.value_size}), {protection},",
                f"\tskel->maps.{ident}.map_fd);",
                f"if (!skel->{ident})",
                "\treturn -ENOMEM;",
            ]
        yield from self._function("int ", "load", self._self, *body, "return 0;")

    def _attempts(self, variant: SignedLoader) -> Iterator[str]:
        """Yield a row of the table for each signature of a variant, or the one without."""
        loader = variant.loader
        suffix = loader.scheme_name.replace("-", "_")
        insns = self._blob(loader.insns, f"insns_{suffix}")
        metadata = self._blob(loader.metadata, f"metadata_{suffix}")
        btf = self._blob(loader.btf, "loader_btf")
        is_signed = bool(variant.signatures)
        digest = self._blob(loader.excl_prog_hash if is_signed else b"", f"excl_hash_{suffix}")
        for number, cms in enumerate([entry.cms for entry in variant.signatures] or [b""]):
            signature = self._blob(cms, f"signature_{suffix}_{number}")
            blobs = (insns, metadata, btf, digest, signature)
            sizes = (insns, metadata, btf, signature)
            yield "\t{"
            yield from (f"\t\t{blob or 'NULL'}," for blob in blobs)
            yield from (f"\t\t{_size(blob)}," for blob in sizes)
            yield f"\t\t{_flags(loader.scheme)},"
            yield "\t},"

    def _blob(self, data: bytes, name: str) -> str:
        """Return the name of the array with these bytes, ``""`` for none; equal ones are one."""
        return self._blobs.setdefault(data, name) if data else ""

    def _open_and_load(self) -> Iterator[str]:
        name = self.name
        yield from self._function(
            f"struct {name} *",
            "open_and_load",
            "void",
            f"struct {name} *skel = {name}__open();",
            "int err;",
            "",
            "if (!skel)",
            "\treturn NULL;",
            f"err = {name}__load(skel);",
            "if (err) {",
            f"\t{name}__destroy(skel);",
            "\terrno = -err;",
            "\treturn NULL;",
            "}",
            "return skel;",
        )


def _members(data: GlobalData) -> list[str]:
    if data.variables is None:
        return [f"unsigned char bytes[{data.entry.value_size}]"]
    return [variable.declaration for variable in data.variables]


def _attach_call(entry: ProgramEntry) -> str:
    """Return the call that attaches a program where its section says, or ``""``.

    Source: ``codegen_attach_detach`` in tools/bpf/bpftool/gen.c.

    Raises:
        InputError: the section names something that is no tracepoint.
    """
    if entry.type in _RAW_TRACEPOINTS:
        tracepoint = entry.section.partition("/")[2]
        if not tracepoint:
            return ""
        if not _TRACEPOINT.fullmatch(tracepoint):
            raise InputError(f"{tracepoint!r} is no tracepoint", where=f"program {entry.name}")
        return f'skel_raw_tracepoint_open("{tracepoint}", prog_fd)'
    if entry.type not in (ProgType.TRACING, ProgType.LSM) or not entry.attach_target:
        return ""
    if entry.attach_type == AttachType.LSM_CGROUP:
        return ""
    if entry.attach_type == AttachType.TRACE_ITER:
        return "skel_link_create(prog_fd, 0, BPF_TRACE_ITER)"
    return "skel_raw_tracepoint_open(NULL, prog_fd)"


def _flags(scheme: Scheme) -> str:
    flags = [
        flag
        for flag, is_set in (
            ("BPFSEAL_BIND_METADATA", scheme.binds_metadata),
            ("BPFSEAL_ASK_HASH", scheme.wants_map_hash),
            ("BPFSEAL_HOST_VALUES", scheme.copies_host_values),
            ("BPFSEAL_UNSIGNED", not scheme.signed_parts),
        )
        if is_set
    ]
    return " | ".join(flags) or "0"


def _size(blob: str) -> str:
    return f"sizeof({blob}) - 1" if blob else "0"


def _array(name: str, data: bytes) -> Iterator[str]:
    yield f"static const char {name}[] __attribute__((__aligned__(8))) ="
    yield f"{_string(data, '')};"


def _string(data: bytes, indent: str) -> str:
    """Return bytes as C string literals, one for each line."""
    lines = [
        "".join(_ESCAPES[byte] for byte in data[at : at + _BYTES_IN_LINE])
        for at in range(0, len(data), _BYTES_IN_LINE)
    ]
    return "\n".join(f'{indent}"{line}"' for line in lines or [""])
