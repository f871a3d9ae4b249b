"""Policies that the kernel takes, and texts that it refuses, with the errno of each.

Source: security/ipe/policy_parser.c and digest.c, lib/parser.c ``match_token``, lib/kstrtox.c
``kstrtou16``; the operations and properties about BPF programs are those of the series.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EBADMSG, EINVAL, ERANGE
from typing import Final

HEADER: Final = b"policy_name=p policy_version=1.2.3\n"
REST: Final = b"DEFAULT action=ALLOW\n"

EVERY_DEFAULT: Final = b"".join(
    b"DEFAULT op=" + name + b" action=DENY\n"
    for name in (
        b"EXECUTE",
        b"FIRMWARE",
        b"KMODULE",
        b"KEXEC_IMAGE",
        b"KEXEC_INITRAMFS",
        b"POLICY",
        b"X509_CERT",
        b"BPF_PROG_LOAD",
        b"BPF_PROG_LOAD_POST_INTEGRITY",
    )
)

SELFTEST: Final = b"""\
policy_name="ipe_bpf_test" policy_version=0.0.1
op=BPF_PROG_LOAD bpf_signature=OK                action=ALLOW
op=BPF_PROG_LOAD bpf_signature=UNSIGNED          action=DENY
op=BPF_PROG_LOAD_POST_INTEGRITY                  action=ALLOW
DEFAULT op=BPF_PROG_LOAD                         action=ALLOW
DEFAULT op=BPF_PROG_LOAD_POST_INTEGRITY          action=ALLOW
DEFAULT action=ALLOW
"""
"""The rules with which the series tests itself; the quotes are a part of the name."""

FULL: Final = b"""\
# All there is in the language.
policy_name=full\tpolicy_version=65535.0.7   # the first line

op=EXECUTE boot_verified=TRUE action=ALLOW
op=EXECUTE dmverity_signature=TRUE fsverity_signature=FALSE action=ALLOW
op=KMODULE dmverity_roothash=sha256:00ffAB action=DENY
op=FIRMWARE fsverity_digest=sha512:0123456789abcdef action=ALLOW
op=BPF_PROG_LOAD bpf_kernel=TRUE action=ALLOW
op=BPF_PROG_LOAD bpf_signature=OK bpf_keyring=BUILTIN bpf_kernel=FALSE action=ALLOW
op=BPF_PROG_LOAD_POST_INTEGRITY bpf_signature=METADATA_VERIFIED action=ALLOW
DEFAULT op=BPF_PROG_LOAD action=DENY
DEFAULT op=EXECUTE action=DENY
DEFAULT action=ALLOW
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A text, and the errno with which the kernel refuses it; 0 if it takes it."""

    name: str
    text: bytes
    errno: int = 0


def _rule(name: str, line: bytes, errno: int = 0) -> Case:
    return Case(name, HEADER + line + b"\n" + REST, errno)


def _header(name: str, line: bytes, errno: int = 0) -> Case:
    return Case(name, line + b"\n" + REST, errno)


def _version(text: bytes, errno: int = 0) -> Case:
    return _header(f"version {text.decode()}", b"policy_name=p policy_version=" + text, errno)


CASES: Final = (
    # The first line.
    Case("nothing but a header and a default", HEADER + REST),
    Case("the policy of the series' own test", SELFTEST),
    Case("all there is in the language", FULL),
    Case("no text", b"", EBADMSG),
    Case("comments and blank lines only", b"# nothing\n \t\n\n", EBADMSG),
    Case("no header", REST, EBADMSG),
    Case("a header alone", HEADER, EBADMSG),
    _header("blanks before and between", b" \t policy_name=p \t policy_version=1.2.3 \t"),
    _header("version before name", b"policy_version=1.2.3 policy_name=p", EBADMSG),
    _header("no version", b"policy_name=p", EBADMSG),
    _header("no name", b"policy_version=1.2.3", EBADMSG),
    _header("an empty name", b"policy_name= policy_version=1.2.3", EBADMSG),
    _header("an empty version", b"policy_name=p policy_version=", EBADMSG),
    _header("the name twice", b"policy_name=p policy_name=p policy_version=1.2.3", EBADMSG),
    _header("something after the version", b"policy_name=p policy_version=1.2.3 x=y", EBADMSG),
    _header("a blank in the name", b"policy_name=my policy policy_version=1.2.3", EBADMSG),
    _header("blanks around =", b"policy_name = p policy_version=1.2.3", EBADMSG),
    _header("upper case", b"POLICY_NAME=p POLICY_VERSION=1.2.3", EBADMSG),
    _header("a name of any bytes", b'policy_name="\xff/=' + b" policy_version=1.2.3"),
    _header("the header twice", HEADER + HEADER.strip(), EBADMSG),
    _header("a comment mark in the name", b"policy_name=a#b policy_version=1.2.3", EBADMSG),
    # The version.
    _version(b"0.0.0"),
    _version(b"65535.65535.65535"),
    _version(b"00001.02.000003"),
    _version(b"+1.+2.+3"),
    _version(b"1.2", EBADMSG),
    _version(b"1", EBADMSG),
    _version(b"1.2.3.4", EBADMSG),
    _version(b"1.2.3.", EBADMSG),
    _version(b"1.2.3.x", EBADMSG),
    _version(b"65536.0.0", ERANGE),
    _version(b"1.65536.0", ERANGE),
    _version(b"1.2.65536", ERANGE),
    _version(b"1.70000", ERANGE),
    _version(b"18446744073709551616.0.0", ERANGE),
    _version(b"99999999999999999999x.0.0", ERANGE),
    _version(b"1.2.x", EINVAL),
    _version(b"1..3", EINVAL),
    _version(b".1.2", EINVAL),
    _version(b"-1.2.3", EINVAL),
    _version(b"0x1.2.3", EINVAL),
    _version(b"70000x.2.3", EINVAL),
    _version(b"++1.2.3", EINVAL),
    _version(b"1.2.3,", EINVAL),
    # Rules.
    _rule("a rule without properties", b"op=EXECUTE action=ALLOW"),
    _rule("every operation", b"\n".join(EVERY_DEFAULT.replace(b"DEFAULT ", b"").splitlines())),
    _rule("tabs", b"\top=EXECUTE\t\tboot_verified=TRUE\taction=DENY\t"),
    _rule("a comment behind", b"op=EXECUTE action=ALLOW # all of it"),
    _rule("a comment without a blank", b"op=EXECUTE action=ALLOW#all of it"),
    _rule("a property twice", b"op=EXECUTE boot_verified=TRUE boot_verified=FALSE action=DENY"),
    _rule(
        "a file's property for a program", b"op=BPF_PROG_LOAD dmverity_signature=TRUE action=DENY"
    ),
    _rule("a program's property for a file", b"op=EXECUTE bpf_kernel=TRUE action=DENY"),
    _rule("no operation", b"bpf_kernel=TRUE action=ALLOW", EBADMSG),
    _rule("an action alone", b"action=ALLOW", EBADMSG),
    _rule("no action", b"op=EXECUTE", EBADMSG),
    _rule("no action after a property", b"op=EXECUTE boot_verified=TRUE", EBADMSG),
    _rule("the action first", b"action=ALLOW op=EXECUTE", EBADMSG),
    _rule("two actions", b"op=EXECUTE action=ALLOW action=ALLOW", EBADMSG),
    _rule("two operations", b"op=EXECUTE op=FIRMWARE action=ALLOW", EBADMSG),
    _rule("the operation after a property", b"boot_verified=TRUE op=EXECUTE action=DENY", EBADMSG),
    _rule("an unknown operation", b"op=BPF_MAP_CREATE action=DENY", EBADMSG),
    _rule("an empty operation", b"op= action=DENY", EBADMSG),
    _rule("an unknown action", b"op=EXECUTE action=AUDIT", EBADMSG),
    _rule("an empty action", b"op=EXECUTE action=", EBADMSG),
    _rule("lower case operation", b"op=execute action=ALLOW", EBADMSG),
    _rule("lower case action", b"op=EXECUTE action=allow", EBADMSG),
    _rule("upper case key", b"OP=EXECUTE action=ALLOW", EBADMSG),
    _rule("an unknown property", b"op=EXECUTE path=/bin/sh action=ALLOW", EBADMSG),
    _rule("a word that is nothing", b"op=EXECUTE all action=ALLOW", EBADMSG),
    _rule("blanks around = of a rule", b"op = EXECUTE action=ALLOW", EBADMSG),
    _rule("a value in quotes", b'op="EXECUTE" action=ALLOW', EBADMSG),
    _rule("commas", b"op=EXECUTE,boot_verified=TRUE,action=ALLOW", EBADMSG),
    _rule("a vertical tab in between", b"op=EXECUTE\vaction=ALLOW", EBADMSG),
    # Properties about programs.
    _rule("bpf_signature=UNSIGNED", b"op=BPF_PROG_LOAD bpf_signature=UNSIGNED action=DENY"),
    _rule("bpf_signature=OK", b"op=BPF_PROG_LOAD bpf_signature=OK action=ALLOW"),
    _rule(
        "bpf_signature=METADATA_VERIFIED",
        b"op=BPF_PROG_LOAD_POST_INTEGRITY bpf_signature=METADATA_VERIFIED action=ALLOW",
    ),
    _rule("bpf_signature=ok", b"op=BPF_PROG_LOAD bpf_signature=ok action=ALLOW", EBADMSG),
    _rule("bpf_signature=BADSIG", b"op=BPF_PROG_LOAD bpf_signature=BADSIG action=DENY", EBADMSG),
    _rule("bpf_signature=NONE", b"op=BPF_PROG_LOAD bpf_signature=NONE action=DENY", EBADMSG),
    _rule("no value", b"op=BPF_PROG_LOAD bpf_signature= action=DENY", EBADMSG),
    _rule("no =", b"op=BPF_PROG_LOAD bpf_signature action=DENY", EBADMSG),
    *(
        _rule(f"bpf_keyring={name}", f"op=BPF_PROG_LOAD bpf_keyring={name} action=ALLOW".encode())
        for name in ("BUILTIN", "SECONDARY", "PLATFORM", "USER")
    ),
    _rule("bpf_keyring=NONE", b"op=BPF_PROG_LOAD bpf_keyring=NONE action=DENY", EBADMSG),
    _rule("bpf_keyring=0", b"op=BPF_PROG_LOAD bpf_keyring=0 action=DENY", EBADMSG),
    _rule("bpf_kernel=FALSE", b"op=BPF_PROG_LOAD bpf_kernel=FALSE action=DENY"),
    _rule("bpf_kernel=1", b"op=BPF_PROG_LOAD bpf_kernel=1 action=DENY", EBADMSG),
    _rule("is_kernel=TRUE", b"op=BPF_PROG_LOAD is_kernel=TRUE action=ALLOW", EBADMSG),
    # Digests.
    _rule("a digest", b"op=EXECUTE dmverity_roothash=sha256:" + b"ab" * 32 + b" action=ALLOW"),
    _rule("a digest of upper case", b"op=EXECUTE fsverity_digest=sha256:ABCD action=ALLOW"),
    _rule("a digest of any algorithm", b"op=EXECUTE fsverity_digest=x:00 action=ALLOW"),
    _rule("a digest of no algorithm", b"op=EXECUTE fsverity_digest=:00 action=ALLOW"),
    _rule("a digest of no bytes", b"op=EXECUTE fsverity_digest=sha256: action=ALLOW"),
    _rule("no colon", b"op=EXECUTE fsverity_digest=sha256 action=ALLOW", EBADMSG),
    _rule("an empty digest", b"op=EXECUTE fsverity_digest= action=ALLOW", EBADMSG),
    _rule("an odd digest", b"op=EXECUTE fsverity_digest=sha256:abc action=ALLOW", EINVAL),
    _rule("no hex", b"op=EXECUTE dmverity_roothash=sha256:xy action=ALLOW", EINVAL),
    _rule("two colons", b"op=EXECUTE dmverity_roothash=a:b:00 action=ALLOW", EINVAL),
    _rule("a digest for a switch", b"op=EXECUTE boot_verified=a:00 action=ALLOW", EBADMSG),
    # Defaults.
    Case("a default for every operation", HEADER + EVERY_DEFAULT),
    Case("a default missing", HEADER + EVERY_DEFAULT[: EVERY_DEFAULT.rindex(b"DEF")], EBADMSG),
    Case("no default", HEADER + b"op=EXECUTE action=ALLOW\n", EBADMSG),
    Case("the default before the rules", HEADER + REST + b"op=EXECUTE action=DENY\n"),
    Case("both kinds of defaults", HEADER + EVERY_DEFAULT + REST),
    Case("two global defaults", HEADER + REST + REST, EBADMSG),
    _rule("two defaults", b"DEFAULT op=POLICY action=DENY\nDEFAULT op=POLICY action=DENY", EBADMSG),
    _rule(
        "a default with a property", b"DEFAULT op=POLICY boot_verified=TRUE action=DENY", EBADMSG
    ),
    _rule("a global default with a property", b"DEFAULT boot_verified=TRUE action=DENY", EBADMSG),
    _rule("a default with a digest", b"DEFAULT op=POLICY fsverity_digest=a:x action=DENY", EINVAL),
    _rule("a default without an action", b"DEFAULT op=POLICY", EBADMSG),
    _rule("DEFAULT alone", b"DEFAULT", EBADMSG),
    _rule("DEFAULT twice", b"DEFAULT DEFAULT op=POLICY action=DENY", EBADMSG),
    _rule("DEFAULT behind", b"op=POLICY DEFAULT action=DENY", EBADMSG),
    _rule("default", b"default op=POLICY action=DENY", EBADMSG),
    # Lines and bytes.
    Case("carriage returns", FULL.replace(b"\n", b"\r\n")),
    Case("only carriage returns", (HEADER + REST).replace(b"\n", b"\r")),
    Case("no line end at the end", (HEADER + REST).rstrip()),
    Case("nothing counts after a NUL", HEADER + REST + b"\0 op=what"),
    Case("a NUL at the start", b"\0" + HEADER + REST, EBADMSG),
    Case("a NUL that hides the default", HEADER + b"\0" + REST, EBADMSG),
    Case("a byte order mark", b"\xef\xbb\xbf" + HEADER + REST, EBADMSG),
    Case("UTF-16", (HEADER + REST).decode().encode("utf-16-le"), EBADMSG),
    Case("0xA0 at the end of a line is a blank", HEADER + b"DEFAULT action=ALLOW\xa0\n"),
    Case("a form feed at the end of a line", HEADER + b"DEFAULT action=ALLOW \f\v\n"),
    Case("a line that goes on", HEADER + b"op=EXECUTE \\\n action=ALLOW\n" + REST, EBADMSG),
    Case("of two errors the first counts", b"policy_name=p policy_version=a\nx\n", EINVAL),
)
