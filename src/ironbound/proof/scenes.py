"""The small worlds that the search exhausts: who and what there is in each, and which messages may be sent.

Data only. Each scene is about one thing; all of them in one world would be the same bugs in a thousand times as many
states. The kernel sees no more than what a message says, so a scene names whatever it likes.

Rule 1: a scene holds lawful messages and, beside each, messages with one thing about it wrong.
Rule 2: what constraints cover is written down here, by hand, for the few that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Message = dict[str, Any]
Said = tuple[str, Message]

CODE, HOSTILE, STRANGE = "code", "hostile", "strange"
CAGE, OTHER_CAGE = "cage", "other-cage"
RELEASE, OTHER_RELEASE = "release", "other-release"
QUORUM: Final = dict.fromkeys(("module", "profile", "launch", "grant", "release", "reconfigure", "break-glass"), 2)


def _under(value: str) -> Message:
    return {"path": {"prefix": {"value": value, "separator": "/"}}}


#: The constraints that grants carry, and the paths that each allows.
WHERE: Final = {"in": _under("/in"), "in-a": _under("/in/a"), "out": _under("/out")}
ALLOWS: Final = {"in": ("/in/a", "/in/b"), "in-a": ("/in/a",), "out": ("/out/a",)}
PATHS: Final = ("/in/a", "/in/b", "/inner", "/out/a")

#: How many entries follow a scene's opening: for the command line, CI, and the nightly run.
QUICK: Final = {"power": 2, "lives": 1, "parts": 1, "limits": 1, "quotas": 2, "roster": 2, "releases": 2}
USUAL: Final = {"power": 3, "lives": 2, "parts": 2, "limits": 2, "quotas": 3, "roster": 2, "releases": 3}
DEEP: Final = {"power": 4, "lives": 3, "parts": 3, "limits": 3, "quotas": 4, "roster": 3, "releases": 4}


@dataclass(frozen=True, slots=True)
class Scene:
    """One world. `opening` is let through, in this order; then the requests, what the node says of each launch
    (`node`: rules, on each of `releases`), the agents' `calls` (by each agent, of each launch, under each grant) and
    their other `acts`."""

    agents: tuple[str, ...]
    grants: tuple[str, ...]
    opening: tuple[Said, ...]
    requests: tuple[Said, ...]
    moments: tuple[int, ...] = (1, 2)
    node: tuple[str, ...] = ("start", "refuse-launch", "exit")
    releases: tuple[str, ...] = ("",)
    calls: tuple[Message, ...] = ()
    acts: tuple[Said, ...] = ()


#: What makes a lawful request unlawful, one thing at a time.
_LATE: Final = ({"expires": 1}, {"not_before": 2}, {"expires": 86_400_002}, {"head_known": False}, {"consents": 1})
_UNSEEN: Final = ({"head": 0}, {"module": HOSTILE}, {"module": STRANGE}, {"config": OTHER_CAGE})
WRONG: Final[Mapping[str, tuple[Message, ...]]] = {
    "approve-module": _LATE,
    "approve-profile": _LATE,
    "approve-release": _LATE,
    "approve-call": (*_LATE[:4], {"consents": 0}),
    "set-quota": (*_LATE, {"head": 0}),
    "reconfigure": (*_LATE, {"version": 3}, {"version": 1}, {"consents_after": 1}),
    "flag-key": (*_LATE, {"since": 99}),
    "review": (*_LATE, {"grant": "g3"}),
    "break-glass": (*_LATE, *_UNSEEN, {"grant_expires": 1}, {"grant_expires": 3_600_002}),
    "launch": (*_LATE, *_UNSEEN),
    "grant": (*_LATE, *_UNSEEN, {"grant_expires": 1}, {"calls": 0}),
}
#: What every request has; the search adds index, head and time.
ASKED: Final[Message] = {
    "consents": 2, "not_before": 1, "expires": 4, "head_known": True, "config": CAGE, "module": CODE,
}  # fmt: skip

_CODE: Final[Said] = ("approve-module", {"id": "m1", "module": CODE, "canary": False})
_HOSTILE: Final[Said] = ("approve-module", {"id": "m2", "module": HOSTILE, "canary": True})
_CAGE: Final[Said] = ("approve-profile", {"id": "p1"})
_CALL: Final[Message] = {
    "tool": "tool", "action": "act", "args": {"path": "/in/a"}, "args_digest": "d", "approval": "", "client": "",
    "client_args": {"path": "/in/a"},
}  # fmt: skip
_ELSEWHERE: Final = ({"args": {"path": "/inner"}}, {"tool": "tool2"}, {"action": "act2"})


def _launch(name: str, agent: str, expires: int = 3) -> Said:
    return "launch", {"id": name, "agent": agent, "expires": expires}


def _grant(name: str, agent: str, **other: Any) -> Said:
    said: Message = {
        "id": name, "agent": agent, "tool": "tool", "action": "act", "where": "in", "calls": 1, "grant_expires": 3,
        "every": 0, "slack": 0, "cost": 0, "approvals": 0, "budget": 0, "delegable": 0, **other,
    }  # fmt: skip
    return "grant", said


def _start(agent: str, launch: int) -> Said:
    return "start", {"now": 1, "launch": launch, "agent": agent, "module": CODE, "config": CAGE, "release": ""}


def _challenge(agent: str, module: str) -> Said:
    return "challenge", {"id": "k1", "agent": agent, "module": module, "config": CAGE, "expires": 3}


def _delegate(agent: str, launch: int, grant: str, to: str, child: int, part: str, **other: Any) -> Said:
    said: Message = {
        "now": 1, "launch": launch, "agent": agent, "grant": grant, "id": part, "child": child, "to": to,
        "module": CODE, "config": CAGE, "tool": "tool", "where": "in-a", "calls": 1, "grant_expires": 2, "budget": 1,
        "delegable": 0, "args": {"path": "/in/b"}, **other,
    }  # fmt: skip
    return "delegate", said


def _drop(agent: str, launch: int, grant: str) -> Said:
    return "drop", {"now": 1, "launch": launch, "agent": agent, "grant": grant}


def _version(name: str, consents_after: int = 2, **quorums: int) -> Said:
    said: Message = {"id": name, "version": 2, "consents_after": consents_after}
    acts = ("module", "profile", "launch", "grant", "release", "reconfigure", "break_glass")
    return "reconfigure", said | {f"quorum_{act}": quorums.get(act, 2) for act in acts}


def _quota(name: str, agent: str, every: int, slack: int) -> Said:
    return "set-quota", {"id": name, "agent": agent, "every": every, "slack": slack}


def _approve(name: str, **other: Any) -> Said:
    said = {"id": name, "agent": "ant", "grant": "g1", "tool": "tool", "args_digest": "d", "consents": 1, **other}
    return "approve-call", said


#: Two agents, from the first launch on: who gets power, for what, and how it is taken away.
_POWER: Final = Scene(
    agents=("ant", "bee"),
    grants=("g1", "g2"),
    opening=(_CODE, _HOSTILE, _CAGE),
    requests=(
        _launch("l1", "ant"),
        _grant("g1", "ant"),
        _grant("g1", "ant", grant_expires=2, calls=2),
        _grant("g2", "ant"),
        _grant("g2", "bee"),
        _launch("l2", "bee"),
        ("revoke", {"grant": "g1", "consents": 1}),
        ("revoke", {"grant": "g2", "consents": 0}),
        ("approve-module", {"id": "m1", "canary": True}),
        ("approve-module", {"id": "m3", "canary": True}),
    ),
    calls=({}, *_ELSEWHERE),
)

#: Launches, stops and canaries.
_LIVES: Final = Scene(
    agents=("ant", "bee"),
    grants=("g1",),
    opening=(_CODE, _HOSTILE, _CAGE),
    requests=(
        _launch("l1", "ant"),
        _launch("l2", "ant", 2),
        _launch("l3", "bee"),
        _grant("g1", "ant", calls=2),
        ("stop", {"agent": "ant", "consents": 1}),
        ("stop", {"agent": "ant", "consents": 0}),
        _challenge("canary-k1", HOSTILE),
        _challenge("canary-k1", CODE),
        _challenge("ant", HOSTILE),
        ("order-stop", {"launch": 3}),
        ("revoke", {"grant": "g1", "consents": 1}),
    ),
    calls=({},),
)

#: Three running agents, the first of which holds a grant that can be handed on twice.
_PARTS: Final = Scene(
    agents=("ant", "bee", "cat"),
    grants=("g1", "g2", "g3"),
    opening=(
        _CODE, _CAGE, _launch("l1", "ant"), _launch("l2", "bee"), _launch("l3", "cat"),
        _start("ant", 2), _start("bee", 3), _start("cat", 4),
        _grant("g1", "ant", calls=2, budget=2, cost=1, delegable=2),
    ),
    requests=(
        ("revoke", {"grant": "g1", "consents": 1}),
        ("revoke", {"grant": "g2", "consents": 1}),
        ("stop", {"agent": "bee", "consents": 1}),
        _grant("g2", "bee", where="in-a", budget=1, cost=1, delegable=1),
    ),
    node=(),
    calls=({}, {"args": {"path": "/in/b"}}, {"client": "g2"}, {"client": "g1"}),
    acts=(
        _delegate("ant", 2, "g1", "bee", 3, "g2", calls=2, grant_expires=3, budget=2, delegable=1),
        _delegate("ant", 2, "g1", "bee", 3, "g2"),
        _delegate("bee", 3, "g2", "cat", 4, "g3"),
        _delegate("bee", 3, "g2", "cat", 4, "g3", where="in"),
        _delegate("bee", 3, "g2", "ant", 2, "g3"),
        _delegate("ant", 2, "g1", "cat", 4, "g3", where="in"),
        *(
            (rule, said | wrong)
            for rule, said in (_delegate("ant", 2, "g1", "bee", 3, "g2"),)
            for wrong in (
                {"calls": 3}, {"calls": 0}, {"grant_expires": 4}, {"grant_expires": 1}, {"budget": 3}, {"budget": -1},
                {"delegable": 2}, {"delegable": -1}, {"where": "out"}, {"id": "g1"}, {"child": 4}, {"to": "ant"},
                {"module": HOSTILE}, {"config": OTHER_CAGE}, {"agent": "cat"}, {"launch": 4, "agent": "cat"},
            )
        ),
        _drop("ant", 2, "g1"),
        _drop("bee", 3, "g2"),
        _drop("bee", 3, "g1"),
        ("exit", {"now": 1, "launch": 3, "agent": "bee"}),
    ),
)  # fmt: skip

#: A running agent under a rate, a budget and approvals of single calls, and one that it may act for.
_LIMITS: Final = Scene(
    agents=("ant", "bee"),
    grants=("g1", "g2", "g3"),
    opening=(
        _CODE, _CAGE, _launch("l1", "ant"), _launch("l2", "bee"), _start("ant", 2), _start("bee", 3),
        _grant("g1", "ant", calls=3, every=2, slack=1, budget=5, cost=2, approvals=1),
        _grant("g2", "bee", where="in-a", grant_expires=2),
        _grant("g3", "ant", tool="tool2", calls=2, every=1, cost=1, budget=1, approvals=2), _approve("c1"),
    ),
    requests=(
        _approve("c1"),
        _approve("c1", agent="bee"),
        _approve("c2", args_digest="e", expires=2),
        _approve("c3", grant="g3", tool="tool2"),
        _approve("c3", grant="g3", tool="tool2", consents=2),
        ("revoke", {"grant": "g2", "consents": 1}),
    ),
    moments=(1, 2, 3),
    node=(),
    calls=(
        {}, {"approval": "c1"}, {"approval": "c1", "args_digest": "e"}, {"approval": "c1", "tool": "tool2"},
        {"approval": "c2", "args_digest": "e"}, {"approval": "c3", "tool": "tool2"},
        {"approval": "c1", "client": "g2"}, {"approval": "c1", "client": "g2", "action": "act2"},
        {"approval": "c1", "client": "g2", "args": {"path": "/in/b"}, "client_args": {"path": "/in/b"}},
        {"approval": "c1", "client": "g2", "args": {"path": "/in/b"}},
    ),
)  # fmt: skip

#: Quotas of one agent and of all together.
_QUOTAS: Final = Scene(
    agents=("ant", "bee"),
    grants=("g1", "g2"),
    opening=(
        _CODE, _CAGE, _launch("l1", "ant"), _launch("l2", "bee"), _start("ant", 2), _start("bee", 3),
        _grant("g1", "ant", calls=3), _grant("g2", "bee", calls=3),
    ),
    requests=(
        _quota("q1", "ant", 1, 0),
        _quota("q2", "", 1, 0),
        _quota("q3", "bee", 2, 2),
        _launch("l3", "ant"),
    ),
    node=(),
    calls=({},),
    acts=(("exit", {"now": 1, "launch": 2, "agent": "ant"}),),
)  # fmt: skip

#: Another trust root, keys that count no more, sealed keys, and approvals that are taken back.
_ROSTER: Final = Scene(
    agents=("ant",),
    grants=("g1", "g2"),
    opening=(_CODE, _CAGE, _launch("l1", "ant"), _start("ant", 2)),
    requests=(
        _version("v2", grant=3),
        _version("v2", launch=1, reconfigure=3, consents_after=3),
        ("flag-key", {"id": "f1", "key": "k1", "since": 3}),
        ("flag-key", {"id": "f2", "key": "k1", "since": 1}),
        _grant("g1", "ant"),
        ("break-glass", _grant("g2", "ant")[1]),
        ("review", {"id": "r1", "grant": "g2"}),
        ("withdraw-module", {"module": CODE, "consents": 1}),
        ("withdraw-module", {"module": CODE, "consents": 0}),
        ("withdraw-profile", {"config": CAGE, "consents": 1}),
        _launch("l2", "ant"),
        ("approve-module", {"id": "m2", "module": CODE, "canary": True}),
        ("approve-profile", {"id": "p2"}),
    ),
    node=("exit",),
    calls=({},),
)

#: What the node runs, where the trust root asks for approved releases and where it does not.
_RELEASES: Final = Scene(
    agents=("ant",),
    grants=(),
    opening=(_CODE, _CAGE),
    requests=(
        ("approve-release", {"id": "r1", "release": RELEASE}),
        ("approve-release", {"id": "r2", "release": RELEASE}),
        ("withdraw-release", {"release": RELEASE, "consents": 1}),
        ("withdraw-release", {"release": RELEASE, "consents": 0}),
        _launch("l1", "ant"),
    ),
    releases=("", RELEASE, OTHER_RELEASE),
)

SCENES: Final[Mapping[str, Scene]] = {
    "power": _POWER,
    "lives": _LIVES,
    "parts": _PARTS,
    "limits": _LIMITS,
    "quotas": _QUOTAS,
    "roster": _ROSTER,
    "releases": _RELEASES,
}
CALL: Final = _CALL
