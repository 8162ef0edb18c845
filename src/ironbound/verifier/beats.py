"""The monitor's heartbeats: whether it said often enough that it looked. Part of claim B3.

Decides where the monitor was silent for longer than the trust root's bound while a launch ran. Silence proves nothing
either way, so it leaves the claim unproven.

Rule 1: times are those that the entries state. The time before the first beat and after the last one is silence too.
Rule 2: a beat follows the one before it by one, or begins anew at 1, as a restarted monitor does. A number that was
        left out is a beat that nobody can read: it counts as missed.
"""

from __future__ import annotations

from collections.abc import Iterator

from .claims import Case
from .history import History, Said


def check_beats(case: Case, history: History, end_ms: int) -> None:
    """Count the beats and what they count, and find the missed ones."""
    beats = history.beats
    case.counts["heartbeats"] = len(beats)
    case.counts["samples"] = sum(beat.says["samples"] for beat in beats)
    for before, beat in zip(beats, beats[1:], strict=False):
        if beat.says["sequence"] > before.says["sequence"] + 1:
            text = f"beat {beat.says['sequence']} follows {before.says['sequence']}"
            case.found("heartbeat-missed", beat.index, text)
    bound = history.replay.trust.heartbeat_ms
    gaps = [gap for gap in _gaps(beats) if gap[1] - gap[0] > bound]
    for index, start in history.starts.items():
        exited = history.exits.get(start.says["launch"])
        began = min(start.says["at_ms"], history.observed[index][0].says["at_ms"])
        ended = end_ms if exited is None else history.clocks[exited.index]
        for opens, closes in gaps:
            silent = min(ended, closes) - max(began, opens)
            if silent > bound:
                text = f"agent {start.says['agent']} ran for {silent} ms without a beat, bound {bound} ms"
                case.found("heartbeat-missed", index, text)
                break
    sampled = sum(beat.says["mode"] == "sampled" for beat in beats)
    if sampled:
        case.remark(f"{sampled} of {len(beats)} beats come from sampling alone: the kernel's events were not to be had")
    lost = sum(beat.says["lost"] for beat in beats)
    if lost:
        case.remark(f"events of the kernel were lost {lost} times; everything was looked at each time")


def _gaps(beats: list[Said]) -> Iterator[tuple[float, float]]:
    """The times between beats, in the order in which they were said, with what lies before and after them."""
    latest = float("-inf")
    for beat in beats:
        yield latest, beat.says["at_ms"]
        latest = beat.says["at_ms"]
    yield latest, float("inf")
