"""Where a bundle lies in an OCI registry, and how to get there.

A reference is ``HOST[:PORT]/NAME[:TAG|@DIGEST]``. The grammar of names and tags is that of the OCI
distribution specification ("Pulling manifests"); the host is always given, as there is no registry
that would go without saying.

Example:
    >>> parse_reference("registry.example.org/tools/execsnoop:1.0").tag
    '1.0'
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final

from bpfseal.bundle.layout import DIGEST
from bpfseal.errors import UsageError

DEFAULT_TAG: Final = "latest"

DEFAULT_TIMEOUT: Final = 120.0
"""Seconds that a whole exchange with a registry may take."""

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
_PART = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")
_TAG = re.compile("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a bundle lies in a registry.

    Attributes:
        host: the registry, with ``:PORT`` if one was given.
        name: the repository in it.
        tag: the tag, or ``""`` if there is a digest.
        digest: ``sha256:`` and the digest of the index, or ``""``.
    """

    host: str
    name: str
    tag: str
    digest: str

    def __str__(self) -> str:
        end = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.host}/{self.name}{end}"

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine."""
        return is_loopback(host_name(self.host))


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach a registry.

    Attributes:
        plain_http: speak http in place of https.
        username: with `password`, in place of what Docker's configuration has.
        password: its password or token.
        token_host: the host of a token service that may see the credentials although it is neither
            above nor below the registry's.
        timeout: seconds for all that is exchanged, from looking up the name to the last byte, with
            log-in, redirects and what is tried again.
    """

    plain_http: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    token_host: str = ""
    timeout: float = DEFAULT_TIMEOUT


def parse_reference(text: str) -> Reference:
    """Take a reference apart; without tag and digest the tag is ``latest``.

    Raises:
        UsageError: it does not follow the grammar.
    """
    host, slash, path = text.partition("/")
    if "@" in host:  # not to be repeated in a message: there may be a password in front of it
        raise UsageError("a reference holds no user name", hint="--username and --password-file")
    name, at, digest = path.partition("@")
    tag = ""
    if not at:
        name, colon, tag = path.partition(":")
        tag = tag if colon else DEFAULT_TAG
    faults = {
        "no HOST/NAME": not slash,
        f"{host!r} is not a host with a dot or a port": not _HOST.fullmatch(host)
        or not ("." in host or ":" in host or host == "localhost"),
        f"{name!r} is not a name in lower case": not _NAME.fullmatch(name) or len(name) > _MAX_NAME,
        f"{tag!r} is not a tag": not at and not _TAG.fullmatch(tag),
        f"{digest!r} is not sha256: and 64 hexadecimal digits": bool(at)
        and not DIGEST.fullmatch(digest),
    }
    for fault, is_there in faults.items():
        if is_there:
            raise UsageError(fault, where=text, hint="HOST[:PORT]/NAME[:TAG|@DIGEST]")
    return Reference(host.lower(), name, tag, digest)


def host_name(host: str) -> str:
    """Return ``HOST[:PORT]`` without the port, and an IPv6 address without brackets."""
    return re.sub(r":[0-9]+\Z", "", host).strip("[]").lower()


def is_loopback(name: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
