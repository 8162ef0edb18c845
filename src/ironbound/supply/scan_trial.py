"""Tries options against a program that ships them: does it refuse each as it refuses one that nobody has?

Decides whether an option is refused, by comparison with the program's own answer. Each time it is started with the
option and, behind it, an option of random letters, so that a program which refuses what it doesn't know never comes to
act. If it refuses the option by name, in lines with the very words that it has for the random one, it doesn't know it.
If it names the random one only, it took the option.

Rule 1: a program that doesn't refuse the random option by name proves nothing, and neither does one of its commands:
        the option then counts as not refused.
Rule 2: an option is refused only if the program and every command that its help names refuse it.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Seconds that a start may take.
START_S: Final = 60
MAX_COMMANDS: Final = 200
#: Arguments put where a command may demand some before it looks at options.
MAX_FILLERS: Final = 5
_FILLER: Final = "1"
"""It is a number, a name and a path."""
_DEMANDED: Final = re.compile(r"(?<![\w-])--(?!help)[a-z][a-z-]*")
_CHOICE: Final = re.compile(r"choose from '?([\w-]+)")
_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{1,40}")
_ROW: Final = re.compile(r"^ {2,8}([a-z][\w -]*?)(?: {2,}| [A-Z<\[]|$)", re.MULTILINE)
_SUGGESTS: Final = re.compile(r"(?i)\b(?:tip|hint|similar|did you mean)\b")
_CHOICES: Final = re.compile(r"\{([a-z0-9_,-]+)\}")


Run = Callable[[Sequence[str]], tuple[int, str]]
"""Starts the program with these words; its exit code, and what it said on both outputs."""
Tell = Callable[[str], None]
#: Characters of a refusal that are kept.
MAX_SAID: Final = 200


@dataclass(frozen=True, slots=True)
class _Place:
    """A command that can be tried: its words with what it demands, and how it refuses two options that nobody has."""

    words: tuple[str, ...]
    answer: str


class TrialError(Exception):
    """The program can't be tried; says why."""


def try_options(program: Path, names: Iterable[str], tell: Tell = lambda text: None) -> dict[str, str | None]:
    """For each option, the words in which the program refuses it, or None. TrialError if the program proves nothing."""

    def run(words: Sequence[str]) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [program, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=START_S, errors="replace"
            )
        except (subprocess.TimeoutExpired, OSError):
            return 0, ""
        return done.returncode, done.stdout + done.stderr

    return tried(run, program.name, names, tell, 2)


def tried(
    run: Run, program: str, names: Iterable[str], tell: Tell = lambda text: None, workers: int = 1
) -> dict[str, str | None]:
    """The same with a program that `run` starts; so many `workers` start it at a time."""
    one, two = f"--q{secrets.token_hex(8)}", f"--q{secrets.token_hex(8)}"
    commands: list[tuple[str, ...]] = [(), *_commands(run, program)]
    with ThreadPoolExecutor(workers) as pool:
        places = list(pool.map(lambda words: _place(run, words, one, two), commands))
        if not any(places):
            raise TrialError(f"{program} doesn't refuse an option that nobody has by its name")
        tell(f"{sum(place is not None for place in places)} of {len(places)} commands refuse what nobody has")
        answers: dict[str, str | None] = {}
        for name in names:
            bare = name.partition("=")[0]
            said = list(pool.map(lambda place, bare=bare: _refusal(run, place, bare, one, two), places))
            answers[name] = None if None in said else said[0]
    return answers


def _commands(run: Run, program: str) -> list[tuple[str, ...]]:
    """The commands that the program's help names, each in words."""
    _, text = run(["--help"])
    found: dict[tuple[str, ...], None] = {}
    for row in _ROW.findall(text):
        for part in row.removeprefix(f"{program} ").split(" | "):
            words = tuple(word for word in part.split() if _WORD.fullmatch(word))
            if words and words[0] != program:
                found[words[:2]] = None
    for choices in _CHOICES.findall(text):
        found.update({(word,): None for word in choices.split(",") if _WORD.fullmatch(word)})
    return list(found)[:MAX_COMMANDS]


def _place(run: Run, words: tuple[str, ...], one: str, two: str) -> _Place | None:
    """The command with as much before the options as it demands; None if it never names what nobody has."""
    padded = words
    for _ in range(MAX_FILLERS + 1):
        code, text = run([*padded, one, two])
        if code != 0 and one in text:
            return _Place(padded, text)
        if choice := _CHOICE.search(text):
            padded = (*padded[:-1], choice[1])
            continue
        demanded = [name for name in dict.fromkeys(_DEMANDED.findall(text.partition("\n")[0])) if name not in padded]
        padded = (*padded, *(part for name in demanded for part in (name, _FILLER))) if demanded else (*padded, _FILLER)
    return None


def _refusal(run: Run, place: _Place | None, name: str, one: str, two: str) -> str | None:
    """The line in which a command refuses an option as it refuses one that nobody has; None if it doesn't."""
    if place is None:
        return None
    code, text = run([*place.words, name, two])
    said = _naming(name, text)
    if code == 0 or [line.replace(name, one) for line in said] != _naming(one, place.answer):
        return None
    return said[0].replace(two, "").strip()[:MAX_SAID] or None


def _naming(option: str, text: str) -> list[str]:
    """The lines that name an option, but for those that suggest another one, which depend on its letters."""
    whole = re.compile(rf"(?<![\w-]){re.escape(option)}(?![\w-])")
    return [line for line in text.splitlines() if whole.search(line) and not _SUGGESTS.search(line)]
