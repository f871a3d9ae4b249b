"""Options from four places: command line, ``BPFSEAL_*`` variables, a config file, defaults.

A verb declares its options once. An option given on the command line wins over the variable, the
variable over the file, the file over the default; it replaces what the others say and adds nothing
to it, and so do options that are `together`.

A file ``bpfseal.toml`` in the current directory is read without anybody having named it, so
whoever can write to the directory can write it. It takes part in nothing that decides about trust:
an option is taken from it only if it was declared `local`. The others come from the command line,
from variables, or from a file that ``--config`` or ``BPFSEAL_CONFIG`` names; where they do not come
from the command line, `Sources` says so.

Example:
    >>> options = Options(Parser(prog="bpfseal sign"), "sign")
    >>> options.add("--hash", choices=("sha256", "sha384"), default="sha256", help="digest")
    >>> given = options.parser.parse_args([])
    >>> options.resolve(given, {"BPFSEAL_HASH": "sha384"}).hash
    'sha384'
"""

from __future__ import annotations

import argparse
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from bpfseal.cli.secrets import without_value
from bpfseal.errors import InputError, UsageError
from bpfseal.input_file import read_file

CONFIG_FILE: Final = "bpfseal.toml"
CONFIG_OPTION: Final = "config"
"""The option that names the file; it is in none."""

INPUT_HELP: Final = "object, bundle or C light skeleton, - for stdin"
"""What ``IN`` is."""

_CONFIG_LIMIT: Final = 16 << 10
"""Bytes of the largest config file: the time that TOML takes grows with the square of a key."""

_LONGEST_SHOWN: Final = 200
_SECRET: Final = re.compile(r"-.*(pass|pin|secret|token|key|auth|cred)", re.IGNORECASE)
"""Options that somebody may expect to take a secret."""
_WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` in place of printing and exiting."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **arguments,
        )

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Raise `UsageError` about arguments that nothing takes."""
        self.error(f"unrecognized arguments: {' '.join(_without_secrets(unknown))}")

    def error(self, message: str) -> NoReturn:
        """Raise the message as `UsageError`."""
        raise UsageError(_shortened(message), hint=f"see: {self.prog} --help")


def _shortened(text: str) -> str:
    """Return a text of the user fit for one line."""
    if len(text) <= _LONGEST_SHOWN:
        return text
    return f"{without_value(text)[:_LONGEST_SHOWN]}..."  # a part of a PIN would not be known as one


def _without_secrets(unknown: Sequence[str]) -> list[str]:
    """Return arguments that nothing takes as messages show them.

    Who writes ``--passphrase SECRET`` in place of ``--passphrase-file FILE`` has given a secret.
    """
    if not any(map(_SECRET.match, unknown)):
        return list(unknown)
    return [each.partition("=")[0] for each in unknown if each.startswith("-")]


def _nonempty(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("empty, or with a NUL character")
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """A config file, or one of its sections.

    Attributes:
        values: what it says.
        where: the file, as messages name it.
        is_named: somebody named the file; one in the current directory is only found there.
        section: the name of the section, or ``""``.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    where: str = CONFIG_FILE
    is_named: bool = False
    section: str = ""

    def place(self, name: str) -> str:
        """Return how messages name an entry."""
        return f"[{self.section}] {name}" if self.section else name


NO_SETTINGS: Final = Settings()


@dataclass(frozen=True, slots=True)
class _Option:
    """One declared option: how argparse converts it, and what argparse is not told."""

    action: argparse.Action
    default: Any
    required: bool
    repeatable: bool
    local: bool

    def from_text(self, text: str, where: str) -> Any:
        """Return the value that an environment variable gives."""
        if self.action.nargs == 0:
            if text.lower() not in _WORDS:
                raise UsageError(f"{_shortened(repr(text))} is not 1 or 0", where=where)
            return _WORDS[text.lower()]
        if self.repeatable:
            return [self._converted(part, where) for part in text.split(os.pathsep) if part]
        return self._converted(text, where)

    def from_toml(self, value: object, where: str) -> Any:
        """Return the value that an entry of the config file gives."""
        if self.action.nargs == 0:
            if not isinstance(value, bool):
                raise UsageError("expected true or false", where=where)
            return value
        if self.repeatable:
            items = value if isinstance(value, list) else [value]
            return [self._converted(item, where) for item in items]
        return self._converted(value, where)

    def _converted(self, value: object, where: str) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UsageError("expected a text", where=where)
        convert = self.action.type if callable(self.action.type) else str
        try:
            result = convert(_nonempty(str(value)))  # a number that is too long has no text
        except (argparse.ArgumentTypeError, ValueError) as error:
            shown = repr(value) if isinstance(value, str) else "a number"
            raise UsageError(f"{_shortened(shown)}: {error}", where=where) from None
        if self.action.choices is not None and result not in self.action.choices:
            choices = ", ".join(map(str, self.action.choices))
            raise UsageError(f"{_shortened(repr(value))} is none of {choices}", where=where)
        return result


class Options:
    """The options of one verb, or those of all verbs.

    Attributes:
        parser: takes the command line apart.
        section: the table of the config file that may set them, or ``""`` for its top.
    """

    def __init__(self, parser: Parser, section: str = "") -> None:
        self.parser = parser
        self.section = section
        self._options: dict[str, _Option] = {}
        self._sets: list[tuple[str, ...]] = []

    def argument(self, name: str, **keywords: Any) -> None:
        """Declare a positional argument; it comes from the command line alone."""
        self.parser.add_argument(name, **keywords)

    def add(
        self,
        *flags: str,
        help: str,  # noqa: A002 - argparse's own name
        default: Any = None,
        required: bool = False,
        repeatable: bool = False,
        local: bool = False,
        **keywords: Any,
    ) -> None:
        """Declare an option, as `argparse.ArgumentParser.add_argument` does.

        Args:
            flags: its names.
            help: what it is for.
            default: its value if nobody gives one.
            required: somebody must give one.
            repeatable: it may be given again; it is a list then.
            local: it decides nothing about trust, weakens no check and names no file, so that the
                file in the current directory may set it.
            keywords: argparse's own.
        """
        if repeatable:
            keywords["action"] = "append"
        note = " (required)" if required else f" (default: {default})" if default else ""
        action = self.parser.add_argument(
            *flags, default=argparse.SUPPRESS, help=f"{help}{note}", **keywords
        )
        self._options[action.dest] = _Option(action, default, required, repeatable, local)

    def flag(
        self,
        *flags: str,
        help: str,  # noqa: A002 - argparse's own name
        local: bool = False,
    ) -> None:
        """Declare an option without a value; `local` as in `add`.

        ``--no-NAME`` takes back what another place says, since the command line wins.
        """
        self.add(*flags, action="store_true", default=False, help=help, local=local)
        name = flags[-1].removeprefix("--")
        self.parser.add_argument(
            f"--{name.removeprefix('no-')}" if name.startswith("no-") else f"--no-{name}",
            dest=name.replace("-", "_"),
            action="store_false",
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )

    def together(self, *flags: str) -> None:
        """Say that options answer one question: a place that gives one of them gives all."""
        self._sets.append(tuple(flag.lstrip("-").replace("-", "_") for flag in flags))

    def names(self) -> set[str]:
        """The names of the options in a config file."""
        return {dest.replace("_", "-") for dest in self._options} - {CONFIG_OPTION}

    def local_names(self) -> set[str]:
        """The names of those that the file in the current directory may set."""
        return {dest.replace("_", "-") for dest, each in self._options.items() if each.local}

    def resolve(
        self,
        given: argparse.Namespace,
        environ: Mapping[str, str],
        settings: Settings = NO_SETTINGS,
    ) -> argparse.Namespace:
        """Return the namespace with a value for each declared option.

        Its attribute `sources` says of each option about trust that is not from the command line
        where it is from, by name.

        Args:
            given: what the command line had.
            environ: the process's environment.
            settings: this section of the config file.

        Raises:
            UsageError: an unfit value, or none where one is needed.
        """
        sources: dict[str, str] = getattr(given, "sources", {})
        ranks = {dest: self._rank(dest, given, environ, settings) for dest in self._options}
        for members in self._sets:
            best = max(ranks[dest] for dest in members)
            ranks |= {dest: _DEFAULT for dest in members if ranks[dest] < best}
        for dest, option in self._options.items():
            name, variable = dest.replace("_", "-"), _variable(dest)
            if ranks[dest] == _COMMAND_LINE:
                continue
            value, source = option.default, ""
            if ranks[dest] == _ENVIRONMENT:
                value, source = option.from_text(environ[variable], variable), variable
            elif ranks[dest] == _FILE:
                source = f"{settings.where}: {settings.place(name)}"
                value = option.from_toml(settings.values[name], source)
            if value is None and option.required:
                place = Settings(section=self.section).place(name)
                where = CONFIG_FILE if option.local else "the file of --config"
                raise UsageError(
                    f"--{name} is needed", hint=f"or {variable}, or {place} in {where}"
                )
            if source and not option.local and value != option.default:
                sources[name] = source
            setattr(given, dest, value)
        given.sources = sources
        return given

    def _rank(
        self,
        dest: str,
        given: argparse.Namespace,
        environ: Mapping[str, str],
        settings: Settings,
    ) -> int:
        """Return the place that the value of an option is taken from."""
        if hasattr(given, dest):
            return _COMMAND_LINE
        if environ.get(_variable(dest)):
            return _ENVIRONMENT
        return _FILE if dest.replace("_", "-") in settings.values else _DEFAULT


_DEFAULT, _FILE, _ENVIRONMENT, _COMMAND_LINE = range(4)
"""The places that options come from; a greater one wins."""


def _variable(dest: str) -> str:
    return f"BPFSEAL_{dest.upper()}"


def refuse_empty(given: argparse.Namespace) -> None:
    """Refuse empty arguments: as a path, an empty text is the current directory.

    Raises:
        UsageError: there is one.
    """
    for name, value in vars(given).items():
        if "" in (value if isinstance(value, list) else [value]):
            raise UsageError(f"{name.replace('_', '-')} is empty", hint="an unset shell variable?")


def read_settings(given: str | None, environ: Mapping[str, str]) -> Settings:
    """Return the contents of the config file: the named one, or that of the current directory.

    Args:
        given: the value of ``--config``.
        environ: the process's environment; ``BPFSEAL_CONFIG`` names a file too.

    Raises:
        InputError: it cannot be read, or it is not TOML.
    """
    named = given or environ.get(_variable(CONFIG_OPTION))
    path = Path(named or CONFIG_FILE)
    if not named and not _is_there(path):
        return NO_SETTINGS
    import tomllib

    try:
        values = tomllib.loads(read_file(path, limit=_CONFIG_LIMIT).decode())
    except RecursionError:
        raise InputError("not TOML: nested too deeply", where=str(path)) from None
    except ValueError as error:
        raise InputError(f"not TOML: {error}", where=str(path)) from None
    return Settings(values, str(path), named is not None)


def _is_there(path: Path) -> bool:
    """Whether the file of the current directory is to be read.

    Raises:
        InputError: that cannot be said, or it is no file: settings that are there must not be
            passed over in silence.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if not stat.S_ISREG(mode):
        raise InputError("not a regular file", where=str(path))
    return True


def section_of(settings: Settings, section: str, known: Options) -> Settings:
    """Return one section of the settings.

    Raises:
        UsageError: the section is no table, has a key that is no option of the verb, or one that
            the file in the current directory may not set.
    """
    values = settings.values.get(section, {})
    if not isinstance(values, dict):
        raise UsageError(f"{section} is not a table", where=settings.where)
    return _checked(Settings(values, settings.where, settings.is_named, section), known)


def top_level_of(settings: Settings, sections: Collection[str], known: Options) -> Settings:
    """Return the settings outside of the verbs' sections.

    Raises:
        UsageError: a name that is neither a verb nor an option of every verb.
    """
    values = {name: value for name, value in settings.values.items() if name not in sections}
    return _checked(Settings(values, settings.where, settings.is_named), known)


def _checked(settings: Settings, known: Options) -> Settings:
    if unknown := sorted(set(settings.values) - known.names()):
        name = _shortened(repr(unknown[0]))
        raise UsageError(
            f"[{settings.section}] has no option {name}"
            if settings.section
            else f"{name} is no verb and no option",
            where=settings.where,
        )
    foreign = sorted(set(settings.values) - known.local_names())
    if foreign and not settings.is_named:
        name = foreign[0]
        raise UsageError(
            f"{settings.place(name)} is not taken from the current directory, "
            "which has no say in trust",
            where=settings.where,
            hint=f"--{name}, {_variable(name.replace('-', '_'))}, or name the file with --config",
        )
    return settings
