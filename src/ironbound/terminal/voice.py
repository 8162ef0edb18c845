"""How the command line speaks: errors with cause and hint on stderr, results on stdout, colour on a terminal only.

Decides no matter of substance. An error is lower case, without a full stop, prefixed with the program's name.

Rule 1: a terminal obeys nothing that others wrote: what is not our own colour and would move, hide or turn what is
read (control characters, escape sequences, bidirectional marks) is shown escaped.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TextIO

#: Exit codes, as the architecture names them.
OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
BROKEN: Final = 3
UNPROVEN: Final = 4

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}
_COLOURS: Final = rf"\x1b\[(?:0|(?:{'|'.join(_CODES.values())})(?:;(?:{'|'.join(_CODES.values())}))*)m"
_OBEYED: Final = re.compile(_COLOURS + r"|[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


class Stop(Exception):
    """Ends the command: what went wrong, what to do about it, and the exit code."""

    def __init__(self, cause: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(cause)
        self.cause, self.hint, self.code = cause, hint, code


def usage(cause: str, hint: str = "") -> NoReturn:
    """End with the exit code for wrong usage."""
    raise Stop(cause, hint, USAGE)


def coloured(stream: TextIO) -> bool:
    """Whether the stream is a terminal whose user has not set NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """The text in colour if the stream shows it, else as it is."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def shown(text: str, stream: TextIO, keep: str = "") -> str:
    """The text as a terminal shows it and nothing else happens; `keep` and, where there is colour, our own stay."""

    def escaped(found: re.Match[str]) -> str:
        if found[0] in keep or (len(found[0]) > 1 and coloured(stream)):
            return found[0]
        return "".join(f"\\u{ord(char):04x}" if not " " <= char <= "~" else char for char in found[0])

    return _OBEYED.sub(escaped, text)


def plain(text: str) -> str:
    """A name as it is if it is printable ASCII, else escaped and quoted."""
    return text if text.isascii() and text.isprintable() else ascii(text)


def say(text: str = "") -> None:
    """Lines on stdout, at once."""
    print(shown(text, sys.stdout, "\n"), flush=True)


def note(text: str) -> None:
    """A line about progress, on stderr."""
    print(paint(f"ironbound: {shown(text, sys.stderr)}", "dim", stream=sys.stderr), file=sys.stderr, flush=True)


def complain(error: Stop) -> int:
    """Print an error with its hint; returns its exit code."""
    head = paint("error", "red", stream=sys.stderr)
    print(f"ironbound: {head}: {shown(error.cause, sys.stderr)}", file=sys.stderr)
    if error.hint and error.hint not in error.cause:
        print(f"ironbound: hint: {shown(error.hint, sys.stderr)}", file=sys.stderr)
    sys.stderr.flush()
    return error.code


def emit(value: Any) -> None:
    """A result as JSON."""
    say(json.dumps(value, indent=2, sort_keys=True))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, columns as wide as their content."""
    rows = [[shown(str(cell), sys.stdout) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    say(paint("  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True)).rstrip(), "bold"))
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def passphrases(
    descriptor: int | None, names: Sequence[str], *, new: bool = False, what: str = "passphrase"
) -> list[bytes]:
    """One secret for each name: lines of a file descriptor, or typed at the terminal without echo.

    `new` ones are typed twice, since nobody could find a typing error later.
    """
    if descriptor is not None:
        try:
            with os.fdopen(os.dup(descriptor), "rb") as file:
                lines = [line.rstrip(b"\n") for line in file.read(65536).splitlines()]
        except OSError as error:
            raise Stop(f"{what} descriptor {descriptor}: {error.strerror}", code=USAGE) from error
        if len(lines) < len(names):
            usage(f"{len(names)} {what}s expected on descriptor {descriptor}, got {len(lines)}")
        return lines[: len(names)]
    if not sys.stdin.isatty():
        usage(f"no terminal to ask for a {what} on", f"give it with --{what}-fd N")
    phrases = []
    for name in names:
        phrase = getpass.getpass(f"{'new ' if new else ''}{what} of {name}: ")
        if new and getpass.getpass("the same again: ") != phrase:
            usage(f"the two {what}s of {name} differ", "nothing was made; try again")
        phrases.append(phrase.encode())
    return phrases
