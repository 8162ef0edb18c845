"""How a command is described, and the parser that is made of the descriptions.

Decides what an argument may look like; what it means is the command's business.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ironbound import __version__
from ironbound.wire.deployment import Deployment, load

from .voice import Stop, usage

_AGE: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Option:
    """One argument of a command, as `add_argument` takes it."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    """An option, or with a name that has no dash a positional argument."""
    return Option(flags, settings)


@dataclass(frozen=True, slots=True)
class Command:
    """`ironbound WORDS`: what it does, an example, and its arguments.

    At most one of the options `either` can be given. With `program`, what stands behind `--` is a program's, wherever
    the options stand, and `program` is the usage that says so.
    """

    words: str
    run: Callable[[argparse.Namespace], int]
    about: str
    example: str
    options: tuple[Option, ...] = ()
    either: tuple[Option, ...] = ()
    program: str = ""


JSON: Final = option("--json", action="store_true", help="machine-readable output")
PLACE: Final = option("-d", "--deployment", type=Path, default=Path("."), metavar="DIR", help="the deployment")
PLACED: Final = (PLACE, JSON)
"""The options of every command that works on a deployment."""


def age_ms(text: str) -> int:
    """Milliseconds of a length of time such as 90s, 15m, 8h, 2d."""
    match = _AGE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write it as 90s, 15m, 8h or 2d")
    return int(match[1]) * _SECONDS[match[2]] * 1000


def count(text: str) -> int:
    """A whole number from 0 on, in plain digits."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def rate(text: str) -> dict[str, int]:
    """N/LENGTH, such as 5/1m, as a grant's rate."""
    calls, _, window = text.partition("/")
    return {"calls": count(calls), "window_ms": age_ms(window)}


def budget(text: str) -> dict[str, Any]:
    """ALL/EACH:UNIT, such as 9000/500:bytes, as a grant's budget."""
    match = re.fullmatch(r"([1-9][0-9]{0,14})/([1-9][0-9]{0,14}):([a-z][a-z0-9_-]{0,31})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: write what all calls and what each may cost, as 9000/500:bytes")
    return {"unit": match[3], "total": int(match[1]), "call": int(match[2])}


def constraint(text: str) -> tuple[str, Any]:
    """ARG=VALUE, ARG=a|b|c, ARG=/pre/fix/*, ARG=1..10 or ARG=* as a grant's constraint."""
    name, found, value = text.partition("=")
    if not found or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: write ARG=VALUE, ARG=a|b, ARG=/path/*, ARG=1..10 or ARG=*")
    bounds = re.fullmatch(r"(\d{1,15})\.\.(\d{1,15})", value)
    if value == "*":
        return name, {"any": True}
    if bounds:
        return name, {"range": {"min": int(bounds[1]), "max": int(bounds[2])}}
    if value.endswith("/*"):
        return name, {"prefix": {"value": value[:-2], "separator": "/"}}
    if "|" in value:
        return name, {"one_of": [_scalar(name, one) for one in value.split("|")]}
    return name, {"equals": _scalar(name, value)}


def _scalar(name: str, text: str) -> str | int:
    """A port is a number; everything else that a provider takes is text."""
    return int(text) if name == "port" and text.isdecimal() and len(text) < 6 else text


def deployment_of(arguments: argparse.Namespace) -> Deployment:
    """The deployment that `-d` names. DeploymentError if there is none."""
    return load(arguments.deployment.resolve())


class _Parser(argparse.ArgumentParser):
    help_text = ""

    def error(self, message: str) -> Any:
        usage(message, f"see `{self.prog} --help`")

    def format_help(self) -> str:
        return self.help_text or super().format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(args or ())
        if "--" not in words or self.get_default("argv") is None:
            return super().parse_known_args(words, namespace)
        at = words.index("--")
        found, rest = super().parse_known_args(words[:at], namespace)
        found.argv = words[at + 1 :]
        return found, rest


def _group(arguments: argparse.Namespace) -> int:
    raise Stop("this command has parts")  # argparse demands one of them


def make_parser(
    help_text: str, groups: Mapping[str, tuple[str, str]], commands: Sequence[Command]
) -> argparse.ArgumentParser:
    """The parser of all commands. `groups` are the first words of commands of two words: what about, and an example.

    A group that is a command by itself stands before its parts.
    """
    parser = _Parser(prog="ironbound", allow_abbrev=False)
    parser.help_text = help_text
    parser.add_argument("--version", action="version", version=f"ironbound {__version__}")
    top = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    opened: dict[str, Any] = {}
    for command in commands:
        first, _, second = command.words.partition(" ")
        if second and first not in opened:
            about, example = groups[first]
            made = _add(top, first, about, example, _group)
            opened[first] = made.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser, required=True)
        place = opened[first] if second else top
        made = _add(place, second or first, command.about, command.example, command.run)
        if command.words in groups:  # a command by itself, which has parts too
            opened[first] = made.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser)
        for one in command.options:
            made.add_argument(*one.flags, **one.settings)
        if command.either:
            exclusive = made.add_mutually_exclusive_group()
            for one in command.either:
                exclusive.add_argument(*one.flags, **one.settings)
        if command.program:
            made.set_defaults(argv=[])
            made.usage = command.program
    return parser


def _add(
    place: Any, name: str, about: str, example: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = place.add_parser(
        name, help=about, description=about, epilog=f"example: {example}", allow_abbrev=False
    )
    made.set_defaults(run=run)
    return made
