"""The names that bypass switches have: found in shipped products, and their kin.

Decides which rule a name, or a name with its value, meets. A name is cut into words wherever its writer cut it
(`skipVerify`, `SKIP_VERIFY`, `--skip-verify`), so a rule is written once. It doesn't decide whether the switch acts.

Rule 1: a STRONG rule is met in every kind of place, also in a text of a binary; its words mean nothing else. A WEAK
        one, whose words are ordinary, is met only where a switch is read: an option, a variable, a key.
Rule 2: a value rule needs both: a name about enforcement, and a value that takes it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

_GUARDS: Final = (
    "auth authentication authorization attestation approval approvals isolation permission permissions policy "
    "sandbox sandboxing seccomp security selinux apparmor signature signatures ssl tls verification oidc discovery "
    "mfa csrf rbac admission"
).split()
_CHECKS: Final = ("verify", "check", "checks", "validation", "confirmation", "confirm")

STRONG: Final[dict[str, tuple[str, ...]]] = {
    "dangerously": ("dangerously",),
    "security-exceptions": ("allow security exceptions", "allow security exception", "security exceptions allowed"),
    "unauthenticated": ("allow unauthenticated", "allow anonymous", "permit unauthenticated"),
    "uninspected": ("allow uninspected", "uninspected credentials"),
    "host-access": ("confirm host access", "allow host access"),
    "allow-all": ("insecure allow all", "allow all tools", "trust all tools", "unsafe allow all", "approve all tools"),
    "allow-insecure": ("allow insecure", "allow unsafe", "allow unverified", "allow untrusted", "allow unsigned"),
    "weaker-sandbox": ("weaker nested sandbox", "weaker sandbox", "weaker network isolation", "weaken sandbox"),
    "ignore-violations": ("ignore violations", "ignore violation"),
    "fail-open": ("fail open",),
    "last-valid": ("retain last valid", "keep last valid"),
    "replay-cache": ("local replay cache",),
    "rewrite-map": ("http rewrite map", "url rewrite map"),
    "dev-secret": ("dev secret", "dev secrets"),
    "skip-check": tuple(f"skip {one}" for one in (*_GUARDS, *_CHECKS)),
    "disable-check": tuple(f"disable {one}" for one in (*_GUARDS, "verify")),
    "bypass-check": tuple(f"bypass {one}" for one in _GUARDS),
    "auto-approve": ("auto approve", "approve self", "self approve", "yolo mode"),
}
WEAK: Final[dict[str, tuple[str, ...]]] = {
    "unsafe": ("unsafe",),
    "insecure": ("insecure",),
    "no-check": tuple(f"no {one}" for one in (*_GUARDS, *_CHECKS)),
    "override": ("image override", "override image", "url override", "override url", "endpoint override", "yolo"),
}
"""For options, variables and keys."""
OPTIONS: Final = {
    "--debug": "debug-option",
    "--watch": "watch-option",
    "--interceptor": "interceptor-option",
    "--verify-signatures": "check-switch",
    "--verify-signature": "check-switch",
}
"""Options that say it by their whole name."""
INTERPRETER: Final = frozenset(
    "PYTHONPATH PYTHONSTARTUP PYTHONINSPECT PYTHONHOME PYTHONOPTIMIZE PYTHONBREAKPOINT PYTHONUSERBASE "
    "PYTHONPYCACHEPREFIX PYTHONWARNINGS LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT NODE_OPTIONS BASH_ENV".split()
)
"""Variables by which code gets in before a program's first line."""

_STRICT_NAMES: Final = frozenset(
    "enforcement enforce approval approvals admission sandbox sandboxing isolation seccomp apparmor selinux "
    "mediation guardrail guardrails".split()
)
_CHECK_NAMES: Final = frozenset("tls ssl verify verification signature signatures attestation".split())
_LAX: Final = frozenset(
    ("auto", "audit", "relaxed", "best effort", "permissive", "skip", "off", "disabled", "unconfined", "warn", "ignore",
     "log only", "dry run", "never", "bypass", "none", "insecure", "unsafe")
)  # fmt: skip
LAX: Final = tuple(one.replace(" ", mark) for one in sorted(_LAX) for mark in ("_-" if " " in one else "_"))
"""The values as they are spelled."""
_FALSE: Final = frozenset(("false", "0", "no", "off"))
_FALSE_NAMES: Final = ("verify", "verify ssl", "verify tls", "ssl verify", "tls verify", "check hostname",
                       "strict security", "verify signature", "verify signatures", "signature verification",
                       "verify certificate", "require signature", "require signatures", "require approval")  # fmt: skip
_HARMLESS: Final = ("unsafe legacy renegotiation", "unsafe hash", "safe unsafe", "unsafe perm")
"""Names with these words are of protocols and libraries, and switch nothing of a product."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@lru_cache(65536)
def words(name: str) -> str:
    """The name's words in lower case, a space before, between and behind: `skipTLS` is ` skip tls `."""
    return f" {' '.join(_WORD.findall(name)).lower()} "


def _met(rules: Mapping[str, tuple[str, ...]]) -> re.Pattern[str]:
    """One expression for all phrases, since most names have none."""
    return re.compile(f" (?:{'|'.join(phrase for phrases in rules.values() for phrase in phrases)}) ")


_STRONG_MET: Final = _met(STRONG)
_WEAK_MET: Final = _met(WEAK)


def _rule(spaced: str, met: re.Pattern[str], rules: Mapping[str, tuple[str, ...]]) -> str:
    """The first rule, in their order, of which the words have a phrase."""
    if not met.search(spaced):
        return ""
    return next(rule for rule, phrases in rules.items() if any(f" {phrase} " in spaced for phrase in phrases))


@lru_cache(65536)
def strong(name: str) -> str:
    """The rule that a name meets wherever it stands, or nothing."""
    return _rule(words(name), _STRONG_MET, STRONG) if len(name) < 200 else ""


@lru_cache(65536)
def switch(kind: str, name: str) -> str:
    """The rule that the name of an option, a variable, a key, a route, a verb or a parameter meets, or nothing."""
    if kind in ("option", "argument"):
        bare, _, value = name.partition("=")
        if found := OPTIONS.get(bare) or setting(bare, value):
            return found
    if kind == "environment" and name in INTERPRETER:
        return "interpreter"
    if found := strong(name):
        return found
    if kind not in ("option", "argument", "environment", "key"):
        return ""
    spaced = words(name)
    if any(f" {one} " in spaced for one in _HARMLESS):
        return ""
    if found := _rule(spaced, _WEAK_MET, WEAK):
        return found
    return "dev-mode" if kind == "environment" and spaced.endswith((" dev ", " dev mode ")) else ""


def setting(name: str, value: str) -> str:
    """The rule that a name with this value meets, or nothing."""
    spaced, low = words(name), value.strip().lower()
    plain = low.replace("-", " ").replace("_", " ")
    if low in _FALSE and any(spaced.endswith(f" {one} ") for one in _FALSE_NAMES):
        return "check-off"
    parts = frozenset(spaced.split())
    if plain in _LAX and parts & _STRICT_NAMES:
        return "lax-mode"
    if plain in ("skip", "off", "disabled", "ignore", "insecure", "bypass") and parts & _CHECK_NAMES:
        return "check-off"
    policy = "policy" in parts and ("mode" in parts or "security" in parts)
    return "lax-mode" if plain in _LAX - {"none", "auto"} and policy else ""


# In bytes. What can't be there is told by literals alone (half a millisecond a megabyte each), then by one expression
# for each first word of the strong rules.


def _groups() -> tuple[tuple[tuple[bytes, ...], re.Pattern[bytes]], ...]:
    by_first: dict[str, list[str]] = {}
    for phrase in dict.fromkeys(phrase for phrases in STRONG.values() for phrase in phrases):
        by_first.setdefault(phrase.partition(" ")[0], []).append(phrase)
    groups = []
    for first, phrases in by_first.items():
        literals = [phrase.replace(" ", "") for phrase in phrases] if len(phrases) <= 3 else [first]
        rest = "|".join(phrase.removeprefix(first).replace(" ", "[_-]?") for phrase in phrases)
        groups.append((tuple(one.encode() for one in literals), re.compile(f"{first}(?:{rest})".encode())))
    return tuple(groups)


_GROUPS: Final = _groups()
_SHOUTED: Final = re.compile(rb"(?<=[A-Z0-9])_(?:UNSAFE_[A-Z0-9_]+|INSECURE)(?![A-Z0-9_a-z])")
_OPTION: Final = re.compile(rb"--(?:debug|watch|interceptor|verify-signatures?)(?![A-Za-z0-9_-])")
_NAMED: Final = re.compile(rb"--[a-z][a-z0-9]*(?:-[a-z0-9]+)*-?(?:unsafe|insecure)(?![a-z0-9])")
_DEV: Final = re.compile(rb"_DEV(?:_MODE)?(?![A-Za-z0-9_])")
_NAME_BYTES: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


_VALUES: Final = (b"auto", b"audit", b"best_effort", b"disabled", b"permissive", b"relaxed", b"skip")
_LONG: Final = 48
"""Letters of a name; what is longer is names that run together, as Go and Rust keep them."""


def _around(data: bytes, start: int, end: int) -> str:
    """The name around a hit: as far as letters, digits, dashes and underscores go, 60 bytes to either side."""
    left, first = start, max(0, start - 60)
    while left > first and data[left - 1] in _NAME_BYTES:
        left -= 1
    right, last = end, min(len(data), end + 60)
    while right < last and data[right] in _NAME_BYTES:
        right += 1
    return data[left:right].decode("ascii")


def _option(data: bytes, start: int, end: int) -> str:
    """The option around a hit where names run together: from its two dashes to the next ones; empty if it is none."""
    left = data.rfind(b"--", max(0, start - 60), start)
    right = data.find(b"--", end, end + 60)
    option = data[left : right if right >= 0 else end].decode("latin-1") if left >= 0 else ""
    return option if re.fullmatch(r"--[a-z][a-z0-9-]*", option) else ""


def strong_in_bytes(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Offset, name and rule of every name that meets a strong rule, also where names run together (as Go's do)."""
    lower = data.lower()
    folded = lower.translate(None, b"-_")
    for literals, pattern in _GROUPS:
        if not any(one in folded for one in literals):
            continue
        for hit in pattern.finditer(lower):
            name = _around(data, *hit.span())
            exact = data[hit.start() : hit.end()].decode("ascii")
            if len(name) <= _LONG and (rule := strong(name)):
                yield hit.start(), name, rule
            elif (len(name) > _LONG and (option := _option(data, *hit.span())) and (rule := strong(option))) or (
                re.search("[_-]", exact) and (rule := strong(option := exact))
            ):
                yield hit.start(), option, rule


def in_bytes(data: bytes) -> Iterator[tuple[int, str, str]]:
    """As `strong_in_bytes`, and what by its spelling is a weak rule's option or variable."""
    yield from strong_in_bytes(data)
    for literal, pattern, kind in (
        (b"_UNSAFE_", _SHOUTED, "environment"),
        (b"_INSECURE", _SHOUTED, "environment"),
        (b"unsafe", _NAMED, "option"),
        (b"insecure", _NAMED, "option"),
        (b"--", _OPTION, "option"),
        (b"_DEV", _DEV, "environment"),
    ):
        if literal not in data:
            continue
        for hit in pattern.finditer(data):
            name = _around(data, *hit.span())
            shaped = name.startswith("--") if kind == "option" else name.isupper() and re.match(r"[A-Z]\w*\Z", name)
            if shaped and (rule := switch(kind, name)):
                yield hit.start() - name.index(hit[0].decode("ascii")), name, rule
    yield from _assigned(data)


def _assigned(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Names with a value that takes enforcement away, as `mode=auto` or `tls: skip` inside a longer text."""
    for value in _VALUES:
        at = data.find(value)
        while at >= 0:
            before = data[max(0, at - 64) : at].rstrip(b" \"'")
            ended = at + len(value) == len(data) or data[at + len(value)] not in _NAME_BYTES
            if ended and before[-1:] in (b"=", b":"):
                bare = before[:-1].rstrip(b" \"'")
                name = _around(bare, len(bare), len(bare))
                if name and (rule := setting(name, value.decode("ascii"))):
                    yield at - len(name) - 1, f"{name}={value.decode('ascii')}", rule
            at = data.find(value, at + 1)
