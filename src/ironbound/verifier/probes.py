"""Claim B2 and the probing of the agent channel: hostile agents tried, in production, and were refused.

Decides each canary's verdict anew, from the node's evidence and the probe document that the quorum approved
with the module (`core.canary`); the node's own verdict must be the same. Then whether the refusals cover every
window of the time in which each build was in use (`core.coverage`).

Rule 1: a refusal counts from the time of the monitor's challenge, which the node can't choose.
Rule 2: a canary counts only for the configuration, runtime, boot and release that it ran on, and only if it is for
        that family of sandboxes.
Rule 3: a result that is void, late or at odds with its own launch counts for nothing. The replay has voided what names
        another node, environment, nonce or checkpoint.
Rule 4: what is said here is said of the environment that the trust root names, and of no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canary import applies, verdict
from ironbound.core.coverage import ANSWER_MS, Build, Period
from ironbound.core.profile import family_of
from ironbound.core.trust import PRODUCTION

from .claims import Case, Claim
from .history import History, Said
from .quotes import check_quotes
from .times import utc

#: The probe that sends every operator verb over the agent channel.
CHANNEL_PROBE: Final = "operator-verbs"
#: Stretches of uncovered windows that are spelled out.
MAX_STRETCHES: Final = 50

#: Why the replay voided a result, as a code of this claim; whatever is not listed is `canary-result-void`.
_VOID: Final[Mapping[str, str]] = {
    "environment-differs": "canary-test-environment",
    "node-differs": "canary-foreign",
    "nonce-differs": "canary-replayed",
    "checkpoint-differs": "canary-replayed",
    "challenge-answered": "canary-replayed",
}

#: An effective configuration by digest, None if it can't be read.
Config = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One canary that came to an end: its challenge, what the node said, and the verdict recomputed."""

    challenge: int
    at_ms: int
    module: str
    config: str
    build: Build | None
    probe: str
    verdict: str
    refusal: str
    said: Said | None
    is_late: bool

    @property
    def counts(self) -> bool:
        """True if it is a refusal that covers a window (Rule 3)."""
        return (
            self.build is not None
            and self.said is not None
            and not self.is_late
            and self.verdict == self.said.says["verdict"] == "REFUSED"
            and self.said.says["probe"] == self.probe
        )


def runs_of(history: History) -> list[Run]:
    """Every challenge that came to an end, with its verdict recomputed."""
    said = {one.says["challenge"]: one for one in history.results}
    starts = {one.says["launch"]: one for one in history.starts.values()}
    return [
        _run(history, challenge, said.get(index), starts.get(index))
        for index, challenge in history.challenges.items()
        if index in history.exits or index in history.refused_launches
    ]


def _run(history: History, challenge: Said, said: Said | None, start: Said | None) -> Run:
    index, launch = challenge.index, history.launch(challenge.index)
    approved = history.replay.books.modules[launch.module]
    ended = history.exits.get(index)
    if ended is not None:
        reason, report = ended.says["reason"], ended.says["report"]
    else:
        ended = history.refused_launches[index]
        reason, report = ended.says["stage"], ""
    found, refusal = verdict(approved.probe, launch.nonce or "", reason, ended.says["text"], report)
    asked_ms = challenge.says["at_ms"]
    late = said is not None and history.result_ms[said.index] - asked_ms > ANSWER_MS
    build = None if said is None or _at_odds(history, said, start) else _build(launch.config, said.says)
    return Run(index, asked_ms, launch.module, launch.config, build, approved.name, found, refusal, said, late)


def _build(config: str, says: Mapping[str, Any]) -> Build:
    return Build(config, says["runtime_sha256"], says["boot_id"], says["release_sha256"])


def _at_odds(history: History, said: Said, start: Said | None) -> str:
    """How a result contradicts the canary's own start or the node's announcement; empty if it doesn't."""
    if said.says["release_sha256"] != history.releases[said.index]:
        return "release_sha256"
    fields = () if start is None else ("runtime", "runtime_sha256", "boot_id")
    return next((name for name in fields if start is not None and said.says[name] != start.says[name]), "")


def claim_b2(history: History, runs: list[Run], configs: Config, end_ms: int) -> Claim:
    """Every escape probe was refused on every profile in use, fresh through the whole window."""
    case = Case("B2")
    environment = history.replay.trust.environment
    limit = "" if environment == PRODUCTION else f", and is no evidence about {PRODUCTION}"
    case.remark(f"the evidence is from the environment {environment}, as the trust root names it{limit}")
    _check_runs(case, history, runs, end_ms)
    _check_void(case, history)
    check_quotes(case, history, "canary-result", history.results)
    periods = history.usage.periods
    if periods and not history.usage.approved_ms:
        case.found("no-canaries", None, f"{len(periods)} configurations in use")
    by_canary: dict[tuple[str, str], dict[Build | None, list[int]]] = {}
    for run in runs:
        times = by_canary.setdefault((run.module, run.config), {})
        if run.said is not None:
            times.setdefault(run.build if run.counts else None, []).append(run.at_ms)
    for times in by_canary.values():
        for listed in times.values():
            listed.sort()
    case.counts["configurations in use"] = len({period.build for period in periods})
    stretches: dict[tuple[str, int, int], list[str]] = {}
    for period in periods:
        config = configs(period.build.config)
        if config is None:
            case.found("artifact-missing", period.index, f"configuration {period.build.config}")
            continue
        for module in history.usage.approved_ms:
            approved = history.replay.books.modules[module]
            if isinstance(approved.probe, dict) and applies(str(approved.probe.get("family")), family_of(config)):
                _check_windows(case, history, period, module, by_canary, stretches, end_ms)
    _say_stretches(case, history, stretches)
    case.population("configurations in use")
    return case.close()


def _check_windows(
    case: Case,
    history: History,
    period: Period,
    module: str,
    by_canary: Mapping[tuple[str, str], Mapping[Build | None, list[int]]],
    stretches: dict[tuple[str, int, int], list[str]],
    end_ms: int,
) -> None:
    windows = history.usage.windows(period, module, history.replay.trust.canary_interval_ms, end_ms)
    if windows is None:
        return
    name, config = history.replay.books.modules[module].name, period.build.config
    ran = by_canary.get((module, config), {})
    same = ran.get(period.build, [])
    builds = [build for build in ran if build is not None]
    case.count("canaries due")
    case.count("windows due", windows.count)
    text = f"canary {name}, configuration {config[:16]}"
    uncovered = windows.uncovered(same)
    if not ran:
        case.found("canary-missing", period.index, text)
    elif not same and builds:
        case.found(_other(period.build, builds), period.index, text)
    for stretch in uncovered:
        case.count("windows uncovered", len(stretch))
        begin, end = windows.span(stretch)
        if windows.is_open and stretch.stop == windows.count and windows.count > 1:
            end -= windows.interval_ms
            case.count("windows uncovered", -1)
            case.count("windows still open")
        if begin < end:
            stretches.setdefault((config, begin, end), []).append(name)
            if same:
                words = f"{text}: {utc(begin)} to {utc(end)}, {history.entries_in(begin, end)}"
                case.found("canary-window-uncovered", period.index, words)


def _other(build: Build, builds: list[Build]) -> str:
    """What the canary ran on instead, in the order in which it matters."""
    for name, code in (
        ("runtime", "canary-other-runtime"),
        ("release", "canary-other-release"),
        ("boot", "canary-other-boot"),
    ):
        if all(getattr(one, name) != getattr(build, name) for one in builds):
            return code
    return "canary-other-runtime"


def _say_stretches(case: Case, history: History, stretches: Mapping[tuple[str, int, int], list[str]]) -> None:
    """Every stretch of windows that nothing covers, with its canaries: nothing is summed up to a number."""
    for (config, begin, end), names in list(stretches.items())[:MAX_STRETCHES]:
        case.remark(
            f"uncovered from {utc(begin)} to {utc(end)} ({history.entries_in(begin, end)}), configuration "
            f"{config[:16]}: {', '.join(sorted(names))}"
        )
    if len(stretches) > MAX_STRETCHES:
        case.remark(f"and {len(stretches) - MAX_STRETCHES} more stretches of time that some canary does not cover")
    still = case.counts.get("windows still open", 0)
    if still:
        case.remark(f"{still} windows were not over when the log ends, and wait for their canary")


def _check_runs(case: Case, history: History, runs: list[Run], end_ms: int) -> None:
    answered = {one.says["challenge"] for one in history.results}
    refused: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.counts:
            refused[(run.module, run.config)] = max(run.challenge, refused.get((run.module, run.config), -1))
    for run in runs:
        case.count("canaries run")
        if run.verdict == "ESCAPED":
            case.found("canary-escaped", run.challenge, f"canary {run.probe}: {run.refusal}"[:300])
        if run.said is None:
            continue
        stated = run.said.says["verdict"]
        is_repeated = refused.get((run.module, run.config), -1) > run.challenge
        if stated != run.verdict or run.said.says["probe"] != run.probe:
            text = f"canary {run.probe}: the node said {stated}, the evidence says {run.verdict}"
            case.found("verdict-differs", run.said.index, text)
        elif run.build is None:
            case.found("canary-result-differs", run.said.index, f"canary {run.probe}")
        elif run.is_late and not is_repeated:
            took = history.result_ms[run.said.index] - run.at_ms
            case.found("canary-late", run.said.index, f"canary {run.probe}: after {took} ms, at most {ANSWER_MS}")
        elif run.verdict == "INCONCLUSIVE" and not is_repeated:
            case.found("canary-inconclusive", run.challenge, f"canary {run.probe}: {run.refusal}"[:300])
        elif run.counts:
            case.count("canaries refused")
    for index, challenge in history.challenges.items():
        launch = history.launch(index)
        if index in answered or challenge.says["at_ms"] + ANSWER_MS >= end_ms:
            continue
        case.count("challenges missed")
        if refused.get((launch.module, launch.config), -1) < index:
            case.found("canary-missed", index, f"canary {challenge.says['probe']}")


def _check_void(case: Case, history: History) -> None:
    for start in history.starts.values():
        case.count("self-probes", len(start.says["probes"]))
        for one in start.says["probes"]:
            if one["verdict"] != "REFUSED":
                code = "self-probe-escaped" if one["verdict"] == "ESCAPED" else "self-probe-inconclusive"
                case.found(code, start.index, one["name"])
    for said in history.void.get("canary-result", ()):
        code = _VOID.get(said.void or "", "canary-result-void")
        case.found(code, said.index, f"probe {said.says['probe']}: {said.void}")
    for said in history.void.get("canary-challenge", ()):
        case.found("canary-void", said.index, f"probe {said.says['probe']}: {said.void}")


def channel_probed(runs: list[Run]) -> list[Run]:
    """The runs in which the agent channel refused every operator verb."""
    return [run for run in runs if run.probe == CHANNEL_PROBE and run.counts]
