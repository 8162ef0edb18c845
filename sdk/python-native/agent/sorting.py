"""Sorts customer messages and tells what came of it, by the rules of `c/examples/triage.c`. No word of MCP in here.

The first class with a keyword at the start of a word, in any case, wins. A record's severity is its class's, plus one
if it sounds urgent, at most critical.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

CLASSES = {
    "security": (2, "breach|phish|leak|password|unauthori|vulnerab|hacked|suspicious|two-factor"),
    "outage": (2, "outage|down|unavailable|offline|timeout|error 5|crash|unreachable"),
    "billing": (1, "invoice|refund|charge|billing|payment|credit card|subscription|price"),
    "feature": (0, "feature|would be nice|please add|wish|suggest|roadmap|integrat"),
    "other": (0, ""),
}
SEVERITIES = ("low", "normal", "high", "critical")
URGENT = "urgent|asap|immediately|all users|production|right now"
MAX_CUSTOMERS = 1024
TOP = 5
MAX_ALERTS = 20


def _words(words: str) -> re.Pattern[str]:
    return re.compile(f"(?<![A-Za-z\x80-\U0010ffff])(?:{words})", re.IGNORECASE | re.ASCII)


_CLASS_WORDS = {name: _words(words) for name, (_, words) in CLASSES.items() if words}
_URGENT = _words(URGENT)


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _amount(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"


def _plain(text: str) -> str:
    """Customers' own words, so that they stay words: nothing that Markdown or HTML would read."""
    return re.sub(r"[\\`*_\[\]<>|&!#~]", r"\\\g<0>", re.sub("[\x00-\x1f]", " ", text))


@dataclass
class Sum:
    """Records and cents."""

    records: int = 0
    cents: int = 0

    def add(self, cents: int) -> None:
        self.records += 1
        self.cents += cents


@dataclass
class Tally:
    """Everything that was learned from the records so far."""

    all: Sum = field(default_factory=Sum)
    classes: dict[str, Sum] = field(default_factory=lambda: {name: Sum() for name in CLASSES})
    severities: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SEVERITIES, 0))
    customers: dict[str, Sum] = field(default_factory=dict)
    customers_left_out: int = 0
    alerts: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, record: Any) -> bool:
        """Takes one record; False if it isn't one."""
        match record:
            case {
                "id": int(ident), "amount_cents": int(cents), "customer": str(name), "subject": str(subject),
                "body": str(body),
            }:  # fmt: skip
                pass
            case _:
                return False
        found = next(
            (one for one, words in _CLASS_WORDS.items() if words.search(subject) or words.search(body)), "other"
        )
        urgent = bool(_URGENT.search(subject) or _URGENT.search(body))
        severity = SEVERITIES[min(CLASSES[found][0] + urgent, len(SEVERITIES) - 1)]
        self.all.add(cents)
        self.classes[found].add(cents)
        self.severities[severity] += 1
        customer = _cut(name, 80)
        if customer in self.customers or len(self.customers) < MAX_CUSTOMERS:
            self.customers.setdefault(customer, Sum()).add(cents)
        else:
            self.customers_left_out += 1
        if severity == "critical" and len(self.alerts) < MAX_ALERTS:
            self.alerts.append((ident, found, _cut(subject, 100)))
        return True

    def top(self) -> list[tuple[str, Sum]]:
        """The customers with the greatest sums, by name where sums are equal."""
        return sorted(self.customers.items(), key=lambda one: (-one[1].cents, one[0].encode()))[:TOP]

    def report(self) -> str:
        """The report, in Markdown."""

        def row(name: str, one: Sum) -> str:
            return f"| {_plain(name)} | {one.records} | {_amount(one.cents)} |\n"

        parts = [f"# Triage report\n\n{self.all.records} records, {_amount(self.all.cents)} in all.\n\n"]
        parts += ["| Class | Records | Amount |\n|---|---:|---:|\n"]
        parts += [row(name, one) for name, one in self.classes.items()]
        parts += ["\n| Severity | Records |\n|---|---:|\n"]
        parts += [f"| {name} | {self.severities[name]} |\n" for name in reversed(SEVERITIES)]
        parts += ["\n| Top customers | Records | Amount |\n|---|---:|---:|\n"]
        parts += [row(name, one) for name, one in self.top()]
        parts += ["\n## Critical\n\n"]
        parts += [f"- {ident} ({found}): {_plain(subject)}\n" for ident, found, subject in self.alerts]
        if more := self.severities["critical"] - len(self.alerts):
            parts += [f"- and {more} more\n"]
        return "".join(parts)

    def summary(self) -> dict[str, Any]:
        """The same in numbers."""
        return {
            "records": self.all.records,
            "amount_cents": self.all.cents,
            "customers_left_out": self.customers_left_out,
            "classes": {
                name: {"records": one.records, "amount_cents": one.cents} for name, one in self.classes.items()
            },
            "severities": dict(self.severities),
            "top_customers": [
                {"customer": name, "records": one.records, "amount_cents": one.cents} for name, one in self.top()
            ],
        }
