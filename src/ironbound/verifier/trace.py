"""`ironbound trace`: the chain of each launch of an agent, from the release to its end, as a ladder.

Decides only what belongs to a launch and how it is told; whether a link holds, `chain` decides. What it reads is a
log that was folded: an auditor's from a bundle that was checked, or the one that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .chain import Link, asked_for, links
from .codes import explain
from .deployed import Releases
from .history import History, Said
from .output import plain


@dataclass(frozen=True, slots=True)
class Ladder:
    """One launch of an agent: its entry, that of its start (None: it never started), and its links in order."""

    agent: str
    launch: int
    started: int | None
    links: tuple[Link, ...]

    @property
    def whole(self) -> bool:
        """True if no link is broken."""
        return not any(link.broken for link in self.links)


def ladders(history: History, releases: Releases, agent: str | None = None) -> Iterator[Ladder]:
    """The launches of an agent, in the log's order; of None: those of every agent, but no canary's."""
    starts = {start.says["launch"]: start for start in history.starts.values()}
    void: dict[int, list[Said]] = {}
    for said in history.void.get("started", ()):
        void.setdefault(said.says["launch"], []).append(said)
    for launch in history.replay.books.launches.values():
        if launch.agent != agent and (agent is not None or launch.nonce is not None):
            continue
        start = starts.get(launch.index)
        found = [*_refused(history, void.get(launch.index, []))]
        if start is None:
            found += [asked_for(history, launch.index, history.replay.size), _unstarted(history, launch.index)]
        else:
            found += [*links(history, releases, start), *_grants(history, launch.index), _end(history, launch.index)]
        yield Ladder(launch.agent, launch.index, None if start is None else start.index, tuple(found))


def _refused(history: History, void: list[Said]) -> Iterator[Link]:
    """What the node said that it started, although it may not have."""
    for said in void:
        if said.void != "launch-stopped" or said.says["launch"] not in history.refused_launches:
            yield Link("start", said.index, "a start without effect", (("start-void", str(said.void)),))


def _unstarted(history: History, launch: int) -> Link:
    refused = history.refused_launches.get(launch)
    if refused is not None:
        return Link("end", refused.index, f"never started: {refused.says['reason']}")
    return Link("end", None, "not started in this log")


def _grants(history: History, launch: int) -> Iterator[Link]:
    books = history.replay.books
    for name, calls in sorted(history.used.get(launch, {}).items()):
        grant = books.grants.get(name)
        if grant is None:
            yield Link("grant", None, name, (("acted-without-intent", "no such grant"),))
            continue
        by = f"signed by {', '.join(grant.humans)}" + ("" if grant.parent is None else ", handed on by an agent")
        yield Link("grant", grant.index, f"{grant.tool} ({grant.action}): {calls} calls, {by}")


def _end(history: History, launch: int) -> Link:
    ended = history.exits.get(launch)
    if ended is None:
        return Link("end", None, "runs, or ran when the log ends")
    return Link("end", ended.index, f"{ended.says['reason']}")


def ladder_value(ladder: Ladder) -> dict[str, Any]:
    """A ladder for programs."""
    return {
        "agent": ladder.agent,
        "launch": ladder.launch,
        "started": ladder.started,
        "whole": ladder.whole,
        "links": [
            {
                "name": link.name,
                "entry": link.index,
                "text": link.text,
                "broken": [{"code": code, "means": explain(code), "text": text} for code, text in link.broken],
            }
            for link in ladder.links
        ],
    }


def ladder_lines(ladder: Ladder, paint: Callable[[str, str], str]) -> Iterator[str]:
    """A ladder for people: each link with a mark, its entry and its words; what is broken below it."""
    state = "whole" if ladder.whole else "broken"
    yield paint(f"{plain(ladder.agent)}, launch in entry {ladder.launch}: {state}", "bold")
    for link in ladder.links:
        mark = paint("✗", "red") if link.broken else paint("✓", "green")
        entry = "-" if link.index is None else str(link.index)
        yield f"  {mark} {link.name:<22} {entry:>8}  {plain(link.text)}"
        for code, text in link.broken:
            yield f"{' ' * 37}{paint(code, 'red')}: {explain(code)}; {plain(text)}"
