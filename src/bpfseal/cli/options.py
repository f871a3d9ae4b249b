"""Options from four places: command line, ``BPFSEAL_*`` variables, ``bpfseal.toml``, defaults.

A verb declares its options once. An option given on the command line wins over the variable, the
variable over the file, the file over the default.

Example:
    >>> options = Options(Parser(prog="bpfseal sign"), "sign")
    >>> options.add("--hash", choices=("sha256", "sha384"), default="sha256", help="digest")
    >>> given = options.parser.parse_args([])
    >>> options.resolve(given, {"BPFSEAL_HASH": "sha384"}, {}).hash
    'sha384'
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from bpfseal.errors import InputError, UsageError
from bpfseal.input_file import read_file

CONFIG_FILE: Final = "bpfseal.toml"
_CONFIG_LIMIT: Final = 1 << 20
_WORDS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` in place of printing and exiting."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **arguments,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the message as `UsageError`."""
        raise UsageError(message, hint=f"see: {self.prog} --help")


@dataclass(frozen=True, slots=True)
class _Option:
    """One declared option: how argparse converts it, and what argparse is not told."""

    action: argparse.Action
    default: Any
    required: bool
    repeatable: bool

    def from_text(self, text: str, where: str) -> Any:
        """Return the value that an environment variable gives."""
        if self.action.nargs == 0:
            if text.lower() not in _WORDS:
                raise UsageError(f"{text!r} is not 1 or 0", where=where)
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
            result = convert(str(value))
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UsageError(f"{value!r}: {error}", where=where) from None
        if self.action.choices is not None and result not in self.action.choices:
            choices = ", ".join(map(str, self.action.choices))
            raise UsageError(f"{value!r} is none of {choices}", where=where)
        return result


class Options:
    """The options of one verb, or those of all verbs.

    Attributes:
        parser: takes the command line apart.
        section: the table of ``bpfseal.toml`` that may set them, or ``""`` for its top.
    """

    def __init__(self, parser: Parser, section: str = "") -> None:
        self.parser = parser
        self.section = section
        self._options: dict[str, _Option] = {}

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
        **keywords: Any,
    ) -> None:
        """Declare an option, as `argparse.ArgumentParser.add_argument` does."""
        if repeatable:
            keywords["action"] = "append"
        action = self.parser.add_argument(
            *flags,
            default=argparse.SUPPRESS,
            help=f"{help} (default: {default})" if default else help,
            **keywords,
        )
        self._options[action.dest] = _Option(action, default, required, repeatable)

    def flag(self, *flags: str, help: str) -> None:  # noqa: A002 - argparse's own name
        """Declare an option without a value."""
        self.add(*flags, action="store_true", default=False, help=help)

    def names(self) -> set[str]:
        """The names of the options in ``bpfseal.toml``."""
        return {dest.replace("_", "-") for dest in self._options}

    def resolve(
        self, given: argparse.Namespace, environ: Mapping[str, str], settings: Mapping[str, Any]
    ) -> argparse.Namespace:
        """Return the namespace with a value for each declared option.

        Args:
            given: what the command line had.
            environ: the process's environment.
            settings: the values of this section of ``bpfseal.toml``.

        Raises:
            UsageError: an unfit value, or none where one is needed.
        """
        for dest, option in self._options.items():
            if hasattr(given, dest):
                continue
            name = dest.replace("_", "-")
            variable = f"BPFSEAL_{dest.upper()}"
            entry = f"[{self.section}] {name}" if self.section else name
            if environ.get(variable):
                value = option.from_text(environ[variable], variable)
            elif name in settings:
                value = option.from_toml(settings[name], f"{CONFIG_FILE}: {entry}")
            else:
                value = option.default
            if value is None and option.required:
                raise UsageError(
                    f"--{name} is needed", hint=f"or {variable}, or {entry} in {CONFIG_FILE}"
                )
            setattr(given, dest, value)
        return given


def read_settings(given: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the contents of ``bpfseal.toml``, or of the file named instead of it.

    Args:
        given: the value of ``--config``.
        environ: the process's environment; ``BPFSEAL_CONFIG`` names a file too.

    Raises:
        InputError: a file that was named cannot be read, or it is not TOML.
    """
    named = given or environ.get("BPFSEAL_CONFIG")
    path = Path(named or CONFIG_FILE)
    if not named and not path.is_file():
        return {}
    import tomllib

    try:
        return tomllib.loads(read_file(path, limit=_CONFIG_LIMIT).decode())
    except ValueError as error:
        raise InputError(f"not TOML: {error}", where=str(path)) from None


def section_of(settings: Mapping[str, Any], section: str, known: Options) -> dict[str, Any]:
    """Return one section of the settings, with unknown keys refused.

    Raises:
        UsageError: the section is no table, or has a key that is no option of the verb.
    """
    values = settings.get(section, {})
    if not isinstance(values, dict):
        raise UsageError(f"{section} is not a table", where=CONFIG_FILE)
    if unknown := sorted(set(values) - known.names()):
        raise UsageError(f"[{section}] has no option {unknown[0]!r}", where=CONFIG_FILE)
    return values


def top_level_of(
    settings: Mapping[str, Any], sections: Collection[str], known: Options
) -> dict[str, Any]:
    """Return the settings outside of the verbs' sections, with unknown names refused.

    Raises:
        UsageError: a name that is neither a verb nor an option of every verb.
    """
    values = {name: value for name, value in settings.items() if name not in sections}
    if unknown := sorted(set(values) - known.names()):
        raise UsageError(f"{unknown[0]!r} is no verb and no option", where=CONFIG_FILE)
    return values
