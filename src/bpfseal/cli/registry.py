"""The options of the verbs that talk to a registry."""

from __future__ import annotations

import argparse
import os

from bpfseal.bundle.reference import DEFAULT_TIMEOUT, Access
from bpfseal.cli.inputs import read_secret
from bpfseal.cli.options import Options
from bpfseal.errors import UsageError

_MAX_TIMEOUT = 3600


def add_registry_options(options: Options) -> None:
    """Declare the options that `read_access` interprets."""
    options.flag("--plain-http", help="speak http in place of https")
    options.add("--username", metavar="NAME", help="log in as, in place of Docker's configuration")
    options.add("--password-file", metavar="FILE", help="file with the password or token")
    options.add("--password-env", metavar="VAR", help="variable with the password or token")
    options.add(
        "--token-host", metavar="HOST", default="", help="token service that may see the password"
    )
    options.add(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        default=int(DEFAULT_TIMEOUT),
        help="how long the whole exchange may take",
        local=True,
    )
    options.together("--password-file", "--password-env")


def _seconds(text: str) -> int:
    seconds = int(text)
    if not 1 <= seconds <= _MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(f"not a number from 1 to {_MAX_TIMEOUT}")
    return seconds


def read_access(args: argparse.Namespace) -> Access:
    """Return how to reach the registry.

    Raises:
        InputError: the password cannot be read.
        UsageError: a name without a password, a password without a name, or two passwords.
    """
    password = read_secret(args, "password")
    if (password is None) != (args.username is None):
        raise UsageError("--username goes with --password-file or --password-env")
    return Access(
        plain_http=args.plain_http,
        username=args.username or "",
        password=os.fsdecode(password or b""),
        token_host=args.token_host,
        timeout=args.timeout,
    )
