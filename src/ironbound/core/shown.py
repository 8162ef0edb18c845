"""What a signer reads: one text for every screen, made of the signed bytes alone.

Decides how each signed field is said in words; not whether it may be signed. The terminal prints the text, the
approval page sets the same rows in type, and the text's SHA-256 is part of the request (3-formats, "renderer digest").

Rule 1: a pure function of what is signed: no clock, no locale, no log.
Rule 2: every signed field is shown; a field that has no words yet is shown as its canonical JSON.
Rule 3: printable ASCII only; everything else is escaped, so that nothing can hide or reorder it. So is each space
        behind a space: a value can't be laid out as rows of its own where a terminal breaks its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .canonical import canonical

_TITLES: Final[Mapping[str, str]] = {
    "module-approval": "approve a module: agents or canaries may run this code",
    "profile-approval": "approve a profile: agents may run in this cage",
    "release-approval": "approve a release: these services, so configured, may run agents here",
    "launch-request": "launch an agent",
    "grant": "grant a capability",
    "call-approval": "approve one call",
    "quota": "set how many calls an agent may make",
    "revocation": "revoke a capability, for good",
    "stop": "stop an agent",
    "trust-root-change": "change the trust root: who rules this deployment",
    "key-compromised": "flag a key as compromised: what it signed since then no longer counts",
    "review": "review what sealed keys granted",
    "trust-root": "found a deployment: these humans rule it, these keys speak in it",
}
_WIDTH: Final = 14
_SPACES: Final = re.compile(" {2,}")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of what is signed. `part`: it belongs to the row above it; `wide`: it is about letting something open."""

    label: str
    value: str
    part: bool = False
    wide: bool = False


def plain(value: Any) -> str:
    """Canonical JSON in which everything outside printable ASCII, and a space behind a space, is escaped."""
    text = "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in canonical(value).decode("utf-8"))
    return _SPACES.sub(lambda found: " " + "\\u0020" * (len(found[0]) - 1), text)


def clock(at_ms: int) -> str:
    """A moment in UTC to the second, with the signed number behind it; of a year that has no four digits only that."""
    days, rest = divmod(at_ms // 1000, 86_400)
    if days >= 2_932_897:
        return f"{at_ms} ms"
    # The civil calendar, counted in eras of 400 years that begin on 1 March.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    date = (
        year + era * 400 + (month >= 10),
        month + 3 if month < 10 else month - 9,
        of_year - (153 * month + 2) // 5 + 1,
    )
    return f"{date[0]:04}-{date[1]:02}-{date[2]:02} {rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02} UTC ({at_ms})"


def span(length_ms: int) -> str:
    """A length of time in its greatest whole unit."""
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000)):
        if length_ms and length_ms % size == 0:
            return f"{length_ms // size} {unit}"
    return f"{length_ms} milliseconds"


def _constraint(value: Any) -> tuple[str, bool]:
    """A constraint in words, and whether it leaves anything open."""
    if type(value) is dict and len(value) == 1:
        ((kind, body),) = value.items()
        if kind == "any" and body is True:
            return "ANYTHING, or nothing", True
        if kind == "equals":
            return f"exactly {plain(body)}", False
        if kind == "one_of" and type(body) is list:
            return "one of " + " or ".join(plain(one) for one in body), False
        if kind == "range" and type(body) is dict and body.keys() == {"min", "max"}:
            return f"a number from {plain(body['min'])} to {plain(body['max'])}", True
        if kind == "prefix" and type(body) is dict and body.keys() == {"value", "separator"}:
            ends = plain(body["separator"])
            return f"{plain(body['value'])} itself, or ANYTHING below it, behind a {ends}", True
    return plain(value), True


def _where(value: Any) -> Iterator[Row]:
    yield Row("arguments", "each as follows" if value else "none")
    for name, constraint in sorted(value.items()):
        words, wide = _constraint(constraint)
        yield Row(plain(name)[1:-1], words, part=True, wide=wide)
    yield Row("all others", "refused", part=True)


def _args(value: Any) -> Iterator[Row]:
    yield Row("arguments", "this very call" if value else "none")
    for name, item in sorted(value.items()):
        yield Row(plain(name)[1:-1], plain(item), part=True)


def _statements(value: Any) -> Iterator[Row]:
    yield Row("signed", "by the release key, each envelope by its SHA-256")
    for name, item in sorted(value.items()):
        yield Row(name, plain(item), part=True)


def _one(label: str, words: Callable[[Any], str]) -> Callable[[Any], Iterator[Row]]:
    def rows(value: Any) -> Iterator[Row]:
        yield Row(label, words(value))

    return rows


def _times(value: Any) -> str:
    return "once" if value == 1 else f"{plain(value)} times"


def _rate(value: Any) -> str:
    if value is None:
        return "no limit but the calls"
    return f"{plain(value['calls'])} calls at once, then {plain(value['calls'])} in {span(value['window_ms'])}"


def _quota(value: Any) -> str:
    return "no quota" if value is None else _rate(value)


def _budget(value: Any) -> str:
    if value is None:
        return "no limit but the calls"
    return f"{plain(value['total'])} {value['unit']} for all calls, {plain(value['call'])} for each"


#: How a field of a request's body is said, whatever the kind; the order is that of the text.
_BODY: Final[Mapping[str, Callable[[Any], Iterator[Row]]]] = {
    "grant": _one("grant", plain),
    "before": _one("quota before", _quota),
    "after": _one("quota after", _quota),
    "key": _one("key", plain),
    "since": _one("since", lambda value: f"entry {plain(value)} of the log"),
    "kind": _one(
        "runs as", lambda value: "an agent" if value == "agent" else "a canary: a hostile agent that tries walls"
    ),
    "size": _one("bytes", plain),
    "surface_sha256": _one("surface", lambda value: value or "none: a program, contained and not analysed"),
    "probe": _one("probe", plain),
    "release_sha256": _one("release", plain),
    "settings_sha256": _one("settings", plain),
    "statements": _statements,
    "profile": _one("name", plain),
    "layers": _one("layers", plain),
    "tool": _one("tool", plain),
    "action": _one("action", plain),
    "where": _where,
    "args": _args,
    "calls": _one("calls", lambda value: f"at most {_times(value)}"),
    "expires_ms": _one("ends", clock),
    "rate": _one("rate", _rate),
    "budget": _one("budget", _budget),
    "credential": _one("credential", lambda value: "none" if value is None else f"{value}, put in by the gateway"),
    "approvals": _one(
        "each call", lambda value: f"waits for {plain(value)} operators" if value else "needs no operator any more"
    ),
    "delegable": _one(
        "hands on", lambda value: f"to other agents, {_times(value)} over" if value else "to no other agent"
    ),
}


def _holds(now: list[str]) -> str:
    return f"{len(now)} {'grant' if len(now) == 1 else 'grants'}{': ' if now else ''}{' '.join(now)}"


def _capability(before: list[str], after: list[str]) -> Iterator[Row]:
    yield Row("holds before", _holds(before))
    yield Row("holds after", _holds(after))
    for one in sorted(set(after) - set(before)):
        yield Row("gains", one, part=True)
    for one in sorted(set(before) - set(after)):
        yield Row("loses", one, part=True)
    if sorted(before) == sorted(after):
        yield Row("changes", "no grant", part=True)


def shown_rows(kind: str, predicate: Mapping[str, Any]) -> tuple[Row, ...]:
    """Every signed field of a request, or of a trust root, in the order in which it is read."""
    rows = [Row("request", _TITLES[kind]), Row("deployment", predicate["deployment"])]
    if kind == "trust-root":
        rest = sorted(predicate.items())
        return (*rows, *(Row(name, plain(value)) for name, value in rest if name != "deployment"))
    body = predicate["body"]
    rows.append(Row("agent", predicate["agent"] or ("all of them together" if kind == "quota" else "none")))
    for name, words in _BODY.items():
        if name in body:
            rows += words(body[name])
    rows += [Row(name, plain(value)) for name, value in sorted(body.items()) if name not in _BODY]
    rows += _capability(predicate["capability"]["before"], predicate["capability"]["after"])
    rows += [
        Row("module", predicate["module_sha256"] or "none"),
        Row("profile", predicate["config_sha256"] or "none"),
        Row("valid from", clock(predicate["not_before_ms"])),
        Row("valid until", clock(predicate["expires_ms"])),
        Row("log head", f"{predicate['log_head']['size']} {plain(predicate['log_head']['root'])}"),
        Row("proposal", predicate["proposal"] or "none"),
        Row("ticket", plain(predicate["ticket"])),
        Row("id", predicate["id"]),
    ]
    return tuple(rows)


def as_text(rows: tuple[Row, ...]) -> str:
    """Rows as lines for a terminal. Ends with a newline."""
    return "".join(f"{'  ' * row.part + row.label:{_WIDTH}} {row.value}\n" for row in rows)


def shown_text(kind: str, predicate: Mapping[str, Any]) -> str:
    """The text a signer reads: every signed field, in a fixed order. Ends with a newline."""
    return as_text(shown_rows(kind, predicate))
