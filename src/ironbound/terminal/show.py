"""What the log says, for people and with --json for programs: status, agents, grants, entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ironbound.core.authority import ABSENT, ADMITTED, ENDED, LIVE, REVOKED, STARTED
from ironbound.core.canonical import FormatError
from ironbound.core.envelope import envelope_from_value, parse_envelope
from ironbound.core.replay import Entry, Grant, Replay
from ironbound.core.request import Signatory
from ironbound.core.roster import REVIEW_DUE_MS
from ironbound.core.statement import parse_statement

from .voice import emit, say, table

_LAUNCH = {ABSENT: "-", ADMITTED: "admitted", STARTED: "running", ENDED: "ended"}
_GRANT = {ABSENT: "-", LIVE: "live", REVOKED: "revoked"}


def clock(at_ms: int) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def signed(signatories: Sequence[Signatory]) -> dict[str, str]:
    """Who signed, and how strongly; `+idp` where an identity provider vouched for them too."""
    return {str(one.human): one.strength + ("" if one.identity is None else "+idp") for one in signatories}


def _by(people: Mapping[str, str]) -> str:
    return ", ".join(f"{human} ({strength})" for human, strength in people.items())


def agents(replay: Replay) -> list[dict[str, Any]]:
    """Every launch with what became of it, in the log's order."""
    read = replay.authority.read
    return [
        {
            "launch": launch.index,
            "agent": launch.agent,
            "state": _LAUNCH[read("launch_state", launch.index)],
            "stopped": read("launch_stopped", launch.index),
            "module_sha256": launch.module,
            "config_sha256": launch.config,
            "humans": list(launch.humans),
            "signed": signed(replay.books.signed.get(launch.index, ())),
            "started": launch.started,
            "ended": launch.ended,
        }
        for launch in replay.books.launches.values()
    ]


def _behind(replay: Replay, grant: Grant) -> Sequence[Signatory]:
    """Who signed a grant, or the one that an agent handed it on from."""
    while grant.parent is not None:
        grant = replay.books.grants[grant.parent]
    return replay.books.signed[grant.index]


def grants(replay: Replay) -> list[dict[str, Any]]:
    """Every grant with what is left of it, in the log's order."""
    read = replay.authority.read
    return [
        {
            "grant": grant.id,
            "index": grant.index,
            "agent": grant.agent,
            "tool": grant.tool,
            "action": grant.action,
            "where": grant.where_value,
            "state": _GRANT[read("grant_state", grant.id)],
            "calls": grant.calls,
            "calls_left": read("grant_left", grant.id),
            "expires_ms": grant.expires_ms,
            "module_sha256": grant.module,
            "humans": list(grant.humans),
            "parent": grant.parent,
            "signed": signed(_behind(replay, grant)),
        }
        for grant in replay.books.grants.values()
    ]


def reviews_due(replay: Replay, said: Mapping[int, int]) -> dict[str, int]:
    """Each grant by sealed keys that no review which counts was about: until when one is due.

    `said`: when each admission was said, by its index.
    """
    return {
        grant: said[glass.index] + REVIEW_DUE_MS
        for grant, glass in replay.books.broken_glass.items()
        if not any(replay.stands(index) for index in glass.reviews)
    }


def status(replay: Replay, said: Mapping[int, int]) -> dict[str, Any]:
    """The deployment in a few numbers. `said`: when each admission was said, by its index."""
    launches = agents(replay)
    return {
        "deployment": replay.trust.deployment,
        "separation": replay.trust.separation,
        "size": replay.size,
        "quorum": dict(replay.trust.quorum),
        "humans": sorted({str(human) for human in replay.trust.humans.values()}),
        "running": [one["agent"] for one in launches if one["state"] == "running"],
        "launches": len(launches),
        "grants_live": sum(1 for one in grants(replay) if one["state"] == "live"),
        "quotas": {name or "all together": rate for name, rate in replay.books.quotas.items() if rate is not None},
        "reviews_due": reviews_due(replay, said),
        "modules": len(replay.books.modules),
        "profiles": [one.name for one in replay.books.profiles.values()],
        "open_intents": len(replay.books.open_intents),
        "void_entries": len(replay.books.void),
    }


def entry_line(entry: Entry) -> dict[str, Any]:
    """One entry of the log as a flat record."""
    try:
        statement = parse_statement(parse_envelope(entry.data).payload)
    except FormatError as error:
        return {"index": entry.index, "kind": "?", "void": str(error)}
    said = statement.predicate
    about: dict[str, Any] = {
        key: said[key]
        for key in ("agent", "tool", "reason", "verdict", "probe", "kind", "status", "launch", "role", "stage")
        if key in said
    }
    if statement.kind == "admitted":
        asked = parse_statement(_inner(said["request"])).kind
        about = {"request": asked, "approvals": len(said["approvals"])}
        if entry.consent is not None:
            about["signed"] = signed(entry.consent.signatories)
    return {
        "index": entry.index,
        "kind": statement.kind,
        "at_ms": said.get("at_ms", said.get("created_ms", 0)),
        "about": about,
        "void": entry.void,
    }


def _inner(request: Any) -> bytes:
    return envelope_from_value(request).payload


def print_agents(replay: Replay, as_json: bool) -> None:
    """`ironbound agents`."""
    rows = agents(replay)
    if as_json:
        emit(rows)
        return
    table(
        ("LAUNCH", "AGENT", "STATE", "MODULE", "BY"),
        [
            (
                str(one["launch"]),
                one["agent"],
                one["state"] + (" (stop ordered)" if one["stopped"] and one["state"] == "running" else ""),
                one["module_sha256"][:12],
                _by(one["signed"]) or "canary",
            )
            for one in rows
        ],
    )


def print_grants(replay: Replay, as_json: bool) -> None:
    """`ironbound grants`."""
    rows = grants(replay)
    if as_json:
        emit(rows)
        return
    table(
        ("GRANT", "AGENT", "TOOL", "ACTION", "STATE", "CALLS LEFT", "EXPIRES (UTC)", "BY"),
        [
            (
                one["grant"],
                one["agent"],
                one["tool"],
                one["action"],
                one["state"],
                f"{one['calls_left']}/{one['calls']}",
                clock(one["expires_ms"]),
                _by(one["signed"]),
            )
            for one in rows
        ],
    )


def print_status(replay: Replay, said: Mapping[int, int], as_json: bool) -> None:
    """`ironbound status`."""
    value = status(replay, said)
    if as_json:
        emit(value)
        return
    value["quotas"] = {
        name: f"{rate['calls']} calls in {rate['window_ms'] / 1000:g} s" for name, rate in value["quotas"].items()
    }
    value["reviews_due"] = [f"{grant} until {clock(until)}" for grant, until in value["reviews_due"].items()]
    for key, shown in value.items():
        if isinstance(shown, dict):
            shown = [f"{one} {value}" for one, value in shown.items()]
        text = ", ".join(str(one) for one in shown) if isinstance(shown, list) else str(shown)
        say(f"{key.replace('_', ' '):14}{text or '-'}")


def print_log(entries: list[dict[str, Any]], as_json: bool) -> None:
    """`ironbound log`."""
    if as_json:
        emit(entries)
        return
    for one in entries:
        shown = {key: _by(value) if key == "signed" else value for key, value in one.get("about", {}).items()}
        about = " ".join(f"{key}={value}" for key, value in shown.items() if value is not None)
        void = f"  VOID: {one['void']}" if one["void"] else ""
        say(f"{one['index']:>6}  {clock(one.get('at_ms', 0))}  {one['kind']:<17} {about}{void}")
