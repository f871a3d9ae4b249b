"""Bad input: status 3, one line on stderr that says what is wrong and where, nothing written."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .support import OBJECT, Cli, Keys, listing, make_keys

_E_MACHINE = 18
_EM_X86_64 = 62


def not_elf() -> bytes:
    return b"#!/bin/sh\nexit 0\n"


def empty() -> bytes:
    return b""


def not_em_bpf() -> bytes:
    data = bytearray(OBJECT.read_bytes())
    struct.pack_into("<H", data, _E_MACHINE, _EM_X86_64)
    return bytes(data)


def without_btf() -> bytes:
    """Make the example's .BTF sections SHT_NULL."""
    data = bytearray(OBJECT.read_bytes())
    (section_headers,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [section_headers + index * entry_size for index in range(count)]
    (names,) = struct.unpack_from("<Q", data, headers[names_index] + 0x18)
    for header in headers:
        (name,) = struct.unpack_from("<I", data, header)
        if data[names + name :].split(b"\0", 1)[0] == b".BTF":
            struct.pack_into("<I", data, header, 0)
    return bytes(data)


def cut_off(parts: int) -> Callable[[], bytes]:
    """Return the first `parts` sixteenths of the example."""
    return lambda: OBJECT.read_bytes()[: OBJECT.stat().st_size * parts // 16]


BAD_OBJECTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (empty, ""),
    "not an ELF": (not_elf, "not"),
    "not EM_BPF": (not_em_bpf, "EM_BPF"),
    "no BTF": (without_btf, "BTF"),
    **{f"cut off at {parts}/16": (cut_off(parts), "") for parts in range(1, 16)},
}


@pytest.mark.parametrize("verb", ["build", "sign", "verify", "inspect", "load", "export"])
@pytest.mark.parametrize("case", BAD_OBJECTS)
def test_a_bad_object_is_refused(
    verb: str, case: str, cli: Cli, keys: Keys, empty_place: Path
) -> None:
    make, message = BAD_OBJECTS[case]
    bad = empty_place.parent / "bad.bpf.o"
    bad.write_bytes(make())
    options: dict[str, tuple[str | Path, ...]] = {
        "sign": keys.signing,
        "verify": ("--certificate", keys.certificate),
        "export": ("--insns", "insns.bin"),
    }
    done = cli(verb, bad, *options.get(verb, ()))
    assert done.status == 3
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"bpfseal: {verb}: {bad}: ")
    assert message in done.err
    assert done.out == ""
    assert listing(empty_place) == []


def without_key_id(keys: Keys) -> tuple[str | Path, ...]:
    bare = keys.folder / "bare.pem"
    command = ("openssl", "req", "-x509", "-key", keys.private_key, "-subj", "/CN=bare")
    options = ("-addext", "subjectKeyIdentifier=none", "-out", bare)
    subprocess.run([*command, *options], check=True, capture_output=True)
    return ("--private-key", keys.private_key, "--certificate", bare)


def of_another_key(keys: Keys) -> tuple[str | Path, ...]:
    other = make_keys(keys.folder / "other", "--force")
    return ("--private-key", keys.private_key, "--certificate", other.certificate)


def encrypted(keys: Keys) -> Keys:
    (keys.folder / "passphrase").write_bytes(b"open sesame\n")
    options = ("--force", "--passphrase-file", keys.folder / "passphrase")
    return make_keys(keys.folder / "encrypted", *options)


def without_passphrase(keys: Keys) -> tuple[str | Path, ...]:
    return encrypted(keys).signing


def with_wrong_passphrase(keys: Keys) -> tuple[str | Path, ...]:
    (keys.folder / "wrong").write_bytes(b"open barley")
    return (*encrypted(keys).signing, "--passphrase-file", keys.folder / "wrong")


def swapped(keys: Keys) -> tuple[str | Path, ...]:
    return ("--private-key", keys.certificate, "--certificate", keys.private_key)


def missing(keys: Keys) -> tuple[str | Path, ...]:
    return ("--private-key", keys.folder / "none.pem", "--certificate", keys.certificate)


BAD_CREDENTIALS: dict[str, tuple[Callable[[Keys], tuple[str | Path, ...]], str]] = {
    "certificate without subjectKeyIdentifier": (without_key_id, "no subjectKeyIdentifier"),
    "key and certificate do not match": (of_another_key, "does not belong"),
    "encrypted key without passphrase": (without_passphrase, "--passphrase-file"),
    "encrypted key with the wrong passphrase": (with_wrong_passphrase, "wrong passphrase"),
    "key and certificate swapped": (swapped, "not a private key"),
    "no such key": (missing, "none.pem: cannot be read"),
}


@pytest.mark.parametrize("case", BAD_CREDENTIALS)
def test_a_bad_key_or_certificate_is_refused(
    case: str, cli: Cli, keys: Keys, empty_place: Path
) -> None:
    make, message = BAD_CREDENTIALS[case]
    done = cli("sign", OBJECT, *make(keys))
    assert done.status == 3
    assert done.err.count("\n") == 1
    assert message in done.err
    assert done.out == ""
    assert listing(empty_place) == []


def test_a_bad_object_among_good_ones_does_not_stop_them(
    cli: Cli, keys: Keys, empty_place: Path
) -> None:
    bad = empty_place.parent / "bad.bpf.o"
    bad.write_bytes(not_elf())
    done = cli("sign", bad, OBJECT, *keys.signing, "-o", "signed")
    assert done.status == 3
    assert done.err.count("\n") == 1
    assert listing(empty_place / "signed") == ["exectrace.bpfseal"]


def test_control_characters_of_a_file_do_not_reach_the_terminal(cli: Cli) -> None:
    done = cli("inspect", "\x1b[2J.bpf.o")
    assert "\x1b" not in done.err
    assert r"\x1b[2J.bpf.o" in done.err
