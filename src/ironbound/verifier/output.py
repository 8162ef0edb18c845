"""A report as text for people and as JSON for programs.

Decides only how a verdict is told: what is not proven first, then the claims from the inside out, then the
population. Colours only where the caller says that a terminal reads.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

from ironbound.core.trust import PRODUCTION

from .bundle import BundleBroken
from .claims import HOLDS, REFUTED, UNPROVEN, Claim, Reason
from .codes import explain
from .times import utc
from .verify import EXIT_BROKEN, Progress, Report

WIDTH: Final = 100
#: Entries of a log whose verification is worth a word on the way.
LONG: Final = 5000
_COLOURS: Final = {HOLDS: "32", REFUTED: "31;1", UNPROVEN: "33"}


def _reason_value(reason: Reason) -> dict[str, Any]:
    return {
        "code": reason.code,
        "means": explain(reason.code),
        "indexes": list(reason.indexes),
        "total": reason.total,
        "text": reason.text,
    }


def _claim_value(claim: Claim) -> dict[str, Any]:
    return {
        "id": claim.id,
        "says": claim.says,
        "status": claim.status,
        "counts": dict(claim.counts),
        "reasons": [_reason_value(reason) for reason in claim.reasons],
        "remarks": list(claim.remarks),
        "controls": list(claim.controls),
    }


def report_value(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "version": 1,
        "exit": report.exit_code,
        "integrity": "sound",
        "deployment": report.deployment,
        "environment": report.environment,
        "pinned": report.pinned,
        "pin": str(report.pin),
        "log": {
            "origin": report.origin,
            "first": 0,
            "last": report.size - 1,
            "size": report.size,
            "root": report.root.hex(),
            "witnesses": list(report.witnesses),
            "first_ms": report.first_ms,
            "last_ms": report.last_ms,
            "as_of_ms": report.as_of_ms,
        },
        "separation": report.separation,
        "entries": dict(report.said),
        "void": report.void,
        "claims": [_claim_value(claim) for claim in report.claims],
    }


def broken_value(broken: BundleBroken) -> dict[str, Any]:
    """A broken bundle for programs: no claim is made."""
    return {
        "version": 1,
        "exit": EXIT_BROKEN,
        "integrity": "broken",
        "code": broken.code,
        "means": explain(broken.code),
        "text": broken.message,
        "claims": [],
    }


def tenths(tell: Callable[[str], None]) -> Progress:
    """Progress through a log of more than LONG entries: a line for each tenth."""
    last = 0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if total > LONG and done * 10 // total > last:
            last = done * 10 // total
            tell(f"{done:,} of {total:,} entries")

    return progress


def plain(text: str) -> str:
    """What an entry says can't move the cursor or hide: everything but printable characters is escaped."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(plain(text), WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _reason_lines(reason: Reason) -> Iterator[str]:
    yield from _wrapped(f"{reason.code}: {explain(reason.code)}", " " * 13)
    if reason.text:
        yield from _wrapped(reason.text, " " * 15)
    if reason.indexes:
        more = f" … {reason.total} in all" if reason.total > len(reason.indexes) else ""
        yield from _wrapped(f"entries {', '.join(map(str, reason.indexes))}{more}", " " * 15)


def report_lines(report: Report, colour: bool) -> Iterator[str]:
    """The report for people, line by line."""
    yield f"deployment  {plain(report.deployment)}, environment {plain(report.environment)}"
    yield f"log         {plain(report.origin)}, entries 0 to {report.size - 1}, root {report.root.hex()}"
    yield f"witnessed   {', '.join(report.witnesses) or 'by nobody'}"
    yield f"period      {utc(report.first_ms)} to {utc(report.last_ms)}"
    yield f"as of       {utc(report.as_of_ms)}; what happened later is not in this bundle"
    yield f"pin         {'matches' if report.pinned else 'none given: this may be the log of another deployment'}"
    yield ""
    limits = [claim for claim in report.claims if claim.status != HOLDS]
    elsewhere = report.environment != PRODUCTION
    if limits or elsewhere:
        yield "What this bundle does not prove"
        if elsewhere:
            text = f"anything about {PRODUCTION}: the trust root says that this is the environment {report.environment}"
            yield from _wrapped(text, "  ")
        for claim in limits:
            codes = ", ".join(reason.code for reason in claim.reasons)
            yield from _wrapped(f"{claim.id}  {claim.status}: {codes}", "  ")
    for claim in report.claims:
        for remark in claim.remarks:
            yield from _wrapped(f"{claim.id}  {remark}", "  ")
    yield ""
    yield "Claims, from the inside out"
    for claim in report.claims:
        status = f"{claim.status:<9}"
        if colour:
            status = f"\x1b[{_COLOURS[claim.status]}m{status}\x1b[0m"
        yield f"  {claim.id} {status} {claim.says}"
        for reason in claim.reasons:
            yield from _reason_lines(reason)
    yield ""
    yield "What was counted"
    for claim in report.claims:
        if claim.counts:
            yield from _wrapped(
                f"{claim.id}  " + ", ".join(f"{what} {count}" for what, count in claim.counts.items()), "  "
            )
    kinds = ", ".join(f"{kind} {count}" for kind, count in report.said.items())
    yield from _wrapped(f"all {report.size} entries: {kinds}, without effect {report.void}", "  ")
    yield ""
    yield _verdict(report)


def _verdict(report: Report) -> str:
    names = {
        status: [claim.id for claim in report.claims if claim.status == status] for status in (HOLDS, REFUTED, UNPROVEN)
    }
    parts = [f"{len(names[HOLDS])} hold"]
    for status in (REFUTED, UNPROVEN):
        if names[status]:
            parts.append(f"{status} {' '.join(names[status])}")
    return f"exit {report.exit_code}: " + "; ".join(parts)


def broken_lines(broken: BundleBroken) -> Iterator[str]:
    """A broken bundle for people."""
    yield f"the bundle's integrity is broken: {broken.code}"
    yield from _wrapped(f"{explain(broken.code)}", "  ")
    yield from _wrapped(broken.message, "  ")
    yield f"exit {EXIT_BROKEN}: nothing in it counts"
