"""Claim B2 and the probing of the agent channel: hostile agents tried, in production, and were refused.

Decides each canary's verdict anew, from the node's evidence and the probe document that the quorum approved
with the module (`core.canary`); the node's own verdict must be the same. Then whether the refusals cover the
time in which each configuration was in use.

Rule 1: a refusal counts from the time of the monitor's challenge, which the node can't choose.
Rule 2: a canary counts only for the configuration and the runtime build that it ran on. One that was refused
        before it started ran on none, and counts for the configuration alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ironbound.core.canary import verdict

from .claims import Case, Claim
from .history import History, Said

#: The probe that sends every operator verb over the agent channel.
CHANNEL_PROBE: Final = "operator-verbs"


@dataclass(frozen=True, slots=True)
class Run:
    """One canary that came to an end: its challenge, what the node said, and the verdict recomputed."""

    challenge: int
    at_ms: int
    module: str
    config: str
    runtime: str | None
    probe: str
    verdict: str
    refusal: str
    said: Said | None


@dataclass(slots=True)
class _Use:
    """When a configuration was in use on one build of the runtime, and the entry of the first launch."""

    index: int
    begin_ms: int
    end_ms: int


def runs_of(history: History) -> list[Run]:
    """Every challenge that came to an end, with its verdict recomputed."""
    said = {one.says["challenge"]: one for one in history.results}
    runtimes = {
        one.says["launch"]: one.says["runtime_sha256"]
        for one in history.starts.values()
        if history.launch(one.says["launch"]).nonce is not None
    }
    return [
        _run(history, challenge, said.get(index), runtimes.get(index))
        for index, challenge in history.challenges.items()
        if index in history.exits or index in history.refused_launches
    ]


def _run(history: History, challenge: Said, said: Said | None, runtime: str | None) -> Run:
    index, launch = challenge.index, history.launch(challenge.index)
    approved = history.replay.books.modules[launch.module]
    ended = history.exits.get(index)
    if ended is not None:
        reason, report = ended.says["reason"], ended.says["report"]
    else:
        ended = history.refused_launches[index]
        reason, report = ended.says["stage"], ""
    found, refusal = verdict(approved.probe, launch.nonce or "", reason, ended.says["text"], report)
    return Run(
        index, challenge.says["at_ms"], launch.module, launch.config, runtime, approved.name, found, refusal, said
    )


def claim_b2(history: History, runs: list[Run], end_ms: int) -> Claim:
    """Every escape probe was refused on every profile in use, fresh through the whole window."""
    case = Case("B2")
    _check_runs(case, history, runs)
    canaries = {module: approval for module, approval in history.modules.items() if approval.kind == "canary"}
    in_use = _in_use(history, end_ms)
    if in_use and not canaries:
        case.found("no-canaries", None, f"{len(in_use)} configurations in use")
    for (config, runtime), use in in_use.items():
        case.count("configurations in use")
        for module, approval in canaries.items():
            begin = max(use.begin_ms, approval.at_ms)
            if begin > use.end_ms:
                continue
            case.count("canaries due")
            name = history.replay.books.modules[module].name
            text = f"canary {name}, configuration {config[:16]}"
            ran = [run for run in runs if (run.module, run.config) == (module, config) and run.said is not None]
            refusals = [run for run in ran if run.verdict == "REFUSED"]
            same = sorted(run.at_ms for run in refusals if run.runtime in (runtime, None))
            if not ran:
                case.found("canary-missing", use.index, text)
            elif refusals and not same:
                case.found("canary-other-runtime", use.index, text)
            elif refusals:  # else each run says why it doesn't count
                gap = _widest_gap(same, begin, use.end_ms)
                if gap > history.replay.trust.canary_interval_ms:
                    case.found("canary-stale", use.index, f"{text}: {gap} ms without a refusal")
    case.population("configurations in use")
    return case.close()


def _check_runs(case: Case, history: History, runs: list[Run]) -> None:
    for run in runs:
        case.count("canaries run")
        if run.verdict == "ESCAPED":
            case.found("canary-escaped", run.challenge, f"canary {run.probe}: {run.refusal}"[:300])
        if run.said is None:
            continue
        stated = run.said.says["verdict"]
        if stated != run.verdict or run.said.says["probe"] != run.probe:
            text = f"canary {run.probe}: the node said {stated}, the evidence says {run.verdict}"
            case.found("verdict-differs", run.said.index, text)
        elif run.verdict == "INCONCLUSIVE" and not _repeated(run, runs):
            case.found("canary-inconclusive", run.challenge, f"canary {run.probe}: {run.refusal}"[:300])
        elif run.verdict == "REFUSED":
            case.count("canaries refused")
    for start in history.starts.values():
        case.count("self-probes", len(start.says["probes"]))
        for one in start.says["probes"]:
            if one["verdict"] != "REFUSED":
                code = "self-probe-escaped" if one["verdict"] == "ESCAPED" else "self-probe-inconclusive"
                case.found(code, start.index, one["name"])
    for said in history.void.get("canary-result", ()):
        case.found("canary-result-void", said.index, f"probe {said.says['probe']}: {said.void}")
    for said in history.void.get("canary-challenge", ()):
        case.found("canary-void", said.index, f"probe {said.says['probe']}: {said.void}")


def _repeated(run: Run, runs: list[Run]) -> bool:
    """True if the same canary was refused under the same configuration afterwards."""
    return any(
        (one.module, one.config, one.verdict) == (run.module, run.config, "REFUSED") and one.challenge > run.challenge
        for one in runs
    )


def _in_use(history: History, end_ms: int) -> dict[tuple[str, str], _Use]:
    """Each configuration and runtime build that agents ran on, with the time from first start to last end."""
    found: dict[tuple[str, str], _Use] = {}
    for start in history.starts.values():
        launch = history.launch(start.says["launch"])
        if launch.nonce is not None:
            continue
        exited = history.exits.get(launch.index)
        until = end_ms if exited is None else exited.says["at_ms"]
        key = (start.says["config_sha256"], start.says["runtime_sha256"])
        use = found.setdefault(key, _Use(start.index, start.says["at_ms"], until))
        use.begin_ms = min(use.begin_ms, start.says["at_ms"])
        use.end_ms = max(use.end_ms, until)
    return found


def _widest_gap(times: list[int], begin: int, end: int) -> int:
    """The longest time in [begin, end] without a refusal, counted from the latest one before it."""
    before = [at for at in times if at <= begin]
    last, widest = (before[-1] if before else begin), 0
    for at in [at for at in times if at > begin]:
        widest = max(widest, min(at, end) - last)
        last = at
        if at >= end:
            break
    return max(widest, end - last)


def channel_probed(runs: list[Run]) -> list[Run]:
    """The runs in which the agent channel refused every operator verb."""
    return [
        run
        for run in runs
        if run.probe == CHANNEL_PROBE
        and run.verdict == "REFUSED"
        and run.said is not None
        and run.said.says["verdict"] == "REFUSED"
    ]
