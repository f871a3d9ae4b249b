"""Take the command line apart, run the verb, and turn every outcome into an exit status."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from bpfseal import __version__
from bpfseal.cli.console import Console
from bpfseal.cli.options import (
    CONFIG_FILE,
    CONFIG_OPTION,
    Options,
    Parser,
    read_settings,
    refuse_empty,
    section_of,
    top_level_of,
)
from bpfseal.cli.streams import StdoutError, discard, flush_stdout, take_standard_fds, whole_writes
from bpfseal.cli.verbs import VERBS, Verb, verb_module
from bpfseal.errors import BpfsealError, CapabilityError, InputError
from bpfseal.input_file import remembered_inputs
from bpfseal.signals import Ended, ending_raises

EXIT_BUG: Final = 70
"""An error that is bpfseal's own fault (EX_SOFTWARE of sysexits.h)."""

EXIT_INTERRUPTED: Final = 130
"""Stopped by SIGINT, as a shell reports it."""

EXIT_SIGNAL: Final = 128
"""What a shell adds to the number of the signal that ended a process: SIGTERM 143, SIGHUP 129."""

EXIT_BROKEN_PIPE: Final = 141
"""The reader of stdout went away, as a shell reports SIGPIPE."""


_NO_THREAD: Final = "can't start new thread"
"""What Python says where a limit of the system on processes or memory is reached."""


class _VerbParser(Parser):
    """The parser of one verb; the verb's module is imported when its options are asked for."""

    @cached_property
    def module(self) -> Verb:
        return verb_module(self.verb)

    @cached_property
    def options(self) -> Options:
        options = Options(self, self.verb)
        self.module.configure(options)
        return options

    @property
    def verb(self) -> str:
        return self.prog.split()[-1]

    def parse_known_args(  # type: ignore[override] # argparse has overloads for other namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        _ = self.options
        return super().parse_known_args(args, namespace)


_EPILOG: Final = f"""\
exit status: 0 done, verified or allowed; 1 not verified or refused; 2 usage; 3 bad input;
4 this environment cannot do it.
Each --OPTION may also come from the variable BPFSEAL_OPTION or from [VERB] in a file that --config
names; those that decide nothing about trust from ./{CONFIG_FILE}, too. --no-OPTION takes back an
option without a value."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; those of the process if not given.

    Returns:
        The exit status: 0 done, 1 a negative verdict, 2 usage, 3 bad input, 4 not possible here.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if argv is None:
        take_standard_fds()
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # what libraries say of odd certificates is no message
    console = Console(json="--json" in arguments, debug="--debug" in arguments)
    console.redact.watch([*arguments, *os.environ.values()])
    with whole_writes(), remembered_inputs():
        return _status(arguments, console)


def _status(arguments: list[str], console: Console) -> int:
    """Run the command line; return the exit status, whatever ends it."""
    try:
        with ending_raises():
            status = _run(arguments, console)
            flush_stdout()
    except BrokenPipeError:
        status = EXIT_BROKEN_PIPE
        discard(sys.stdout)
    except StdoutError as error:
        console.trace()
        console.note(str(error))
        status = error.exit_status
        discard(sys.stdout)
    except Ended as ended:
        console.note(f"ended by {ended}")
        status = EXIT_SIGNAL + ended.number
    except KeyboardInterrupt:
        console.note("interrupted")
        status = EXIT_INTERRUPTED
    return status


def _run(arguments: list[str], console: Console) -> int:
    try:
        status = _dispatch(arguments, console)
    except (BrokenPipeError, StdoutError):
        raise
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line, no traceback
        console.trace()
        told = error if isinstance(error, BpfsealError) else _of_the_system(error)
        if told is None:
            console.note(f"internal error: {type(error).__name__}: {error} (--debug shows where)")
            status = EXIT_BUG
        else:
            console.fail(told)
            status = told.exit_status
    console.finish(status)
    return status


def _of_the_system(error: Exception) -> BpfsealError | None:
    """Return what an error of the system or of an odd input means; ``None`` for a defect."""
    if isinstance(error, OSError):
        where = "" if error.filename is None else str(error.filename)
        return CapabilityError(error.strerror or str(error), where=where)
    if isinstance(error, MemoryError):
        return CapabilityError("not enough memory")
    if isinstance(error, ImportError) and not (error.name or "").startswith("bpfseal"):
        return CapabilityError(f"a library cannot be loaded: {error}")
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return CapabilityError(_NO_THREAD)
    if isinstance(error, RecursionError):
        return InputError("nested too deeply")
    if isinstance(error, UnicodeError):
        return InputError(
            f"text that is not valid Unicode: {error.reason}"
            if isinstance(error, UnicodeEncodeError | UnicodeDecodeError)
            else "text that is not valid Unicode"
        )
    return None


def _dispatch(arguments: list[str], console: Console) -> int:
    parser = Parser(
        prog="bpfseal",
        description="Build, sign, verify and load signed BPF loaders.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"bpfseal {__version__}")
    common = _add_common(parser)
    subparsers = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, parser_class=_VerbParser
    )
    parsers: dict[str, _VerbParser] = {}
    for name, summary in VERBS.items():
        parsers[name] = subparsers.add_parser(name, help=summary, description=summary)
        _add_common(parsers[name])

    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # reported by the verb's parser, whose help it is that lists the known ones
        parsers[args.verb].refuse(unknown)
    console.verb = args.verb
    refuse_empty(args)
    settings = read_settings(getattr(args, "config", None), os.environ)
    console.redact.watch(settings.values)
    common.resolve(args, os.environ, top_level_of(settings, parsers, common))
    console.json, console.verbose, console.debug = args.json, args.verbose, args.debug
    sections = {
        name: section_of(settings, name, parsers[name].options)
        for name in VERBS
        if name in settings.values or name == args.verb
    }
    verb = parsers[args.verb]
    verb.options.resolve(args, os.environ, sections[args.verb])
    console.sources = args.sources
    console.redact.watch(vars(args))
    return verb.module.run(args, console)


def _add_common(parser: Parser) -> Options:
    """Declare the options that every verb has; they stand before or after the verb."""
    options = Options(parser)
    options.flag("--json", help="print one JSON document", local=True)
    options.flag("-v", "--verbose", help="print details on stderr", local=True)
    options.flag("--debug", help="print a traceback with an error", local=True)
    options.add(
        f"--{CONFIG_OPTION}",
        metavar="FILE",
        help=f"read this in place of ./{CONFIG_FILE}",
        local=True,
    )
    return options
