"""Claim C5: malformed and unauthorised requests, sent to the running controller, were refused.

Decides from what the monitor says it drew and from the controller's own refusals. What was sent is made anew
(`core.malformed`), so nobody's word is taken for it.

Rule 1: a request was refused if between the checkpoint and the monitor's word there is an entry of the controller that
        names this very submission, and a reason that it has. Nobody but the monitor knew the bytes by then.
Rule 2: an asking counts only if everything in it was refused.
Rule 3: while a controller of one release ran on one boot, each entry of the log lies at most one interval after an
        asking that counts, or at most `GRACE_MS` before one. Times without entries need none: nothing ran.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

from ironbound.core.malformed import GRACE_MS, Attempt, attempts, every_ms

from .claims import Case, Claim
from .history import History, Said
from .times import utc


def claim_c5(history: History, end_ms: int) -> Claim:
    """Malformed and unauthorised requests were refused."""
    case = Case("C5")
    counted = [history.clocks[said.index] for said in history.probed if _refused(case, history, said)]
    case.counts["probes that count"] = len(counted)
    for begin, stop in _periods(history, end_ms):
        case.count("releases and boots of the controller")
        times = [one for one in counted if begin <= one <= stop]
        for since, until in pairwise([begin, *times, stop]):
            first = since if since == begin else since + every_ms(history.replay.trust.canary_interval_ms) + 1
            _check_gap(case, history, first, until - GRACE_MS)
    case.population("probes that count")
    return case.close()


def _periods(history: History, end_ms: int) -> Iterator[tuple[int, int]]:
    """From when to when a controller of one release ran on one boot."""
    begins: list[int] = []
    build = None
    for said in history.services:
        if said.says["role"] == "controller":
            before, build = build, (said.says["release_sha256"], said.says["boot_id"])
            if build != before:
                begins.append(history.clocks[said.index])
    yield from pairwise([*begins, max([end_ms, *begins[-1:]])])


def _check_gap(case: Case, history: History, first_ms: int, last_ms: int) -> None:
    """Nothing was said from first to last, or the controller had to be asked by then."""
    clocks = history.clocks
    at = bisect_left(clocks, first_ms)
    if at < bisect_right(clocks, last_ms):
        text = f"{utc(first_ms)} to {utc(last_ms)}, {history.entries_in(first_ms, last_ms + 1)}"
        case.found("channel-not-asked", at, text)


def _refused(case: Case, history: History, said: Said) -> bool:
    """Whether all that belongs to this asking was refused; what was not is found."""
    case.count("probes of the channel")
    admitted = bisect_left(history.again, said.says["checkpoint"]["size"], key=lambda one: one[0])
    latest = history.again[admitted - 1][1] if admitted else None
    made = attempts(history.root, said.says, latest)
    answers = {one.name: _answer(case, history, said, one) for one in made}
    case.count("requests sent", len(made))
    case.count("requests refused", sum(answers.values()))
    return all(answers.values())


def _answer(case: Case, history: History, said: Said, sent: Attempt) -> bool:
    if sent.asked in history.requests or sent.asked in history.proposed:
        case.found("channel-admitted", said.index, sent.name)
        return False
    begin = said.says["checkpoint"]["size"]
    answers = [
        one for one in history.refusals.get((sent.digest, sent.verb), ()) if begin <= one.index < said.index
    ]
    if not answers:
        case.found("channel-answer-missing", said.index, sent.name)
    for one in answers:
        if one.says["reason"] not in sent.reasons:
            case.found("channel-answer-differs", one.index, f"{sent.name}: {one.says['reason']}")
            return False
    return bool(answers)
