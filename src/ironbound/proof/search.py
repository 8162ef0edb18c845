"""Every history of a small world, played on the running interpreter and held against the specification.

The solvers prove the table for unbounded worlds; they don't see the interpreter that runs it, nor the order of
constraints. Here `Authority` itself is driven, breadth first, through every history of a few agents, grants, launches
and moments, and after each message every promise and every invariant of the specification is evaluated plainly.

Rule 1: which messages there are is data, and includes those that must be refused: each lawful message, and each with
        one thing about it wrong.
Rule 2: a world is exhausted, or the result says that it was not.
Rule 3: what constraints cover is written down here, by hand, for the few that there are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ironbound.core.logic import Across, Plain
from ironbound.verifier.proof.specification import INVARIANTS, MARKS, TAKING, Specification

from .load import Kernel

#: The world: who, what and when there is.
AGENTS: Final = ("ant", "bee")
GRANTS: Final = ("g1", "g2")
CODE, HOSTILE, STRANGE = "code", "hostile", "strange"
CAGE, OTHER_CAGE = "cage", "other-cage"
MOMENTS: Final = (1, 2)
QUORUM: Final = dict.fromkeys(("module", "profile", "launch", "grant", "reconfigure", "break-glass"), 2)
#: The constraints that grants carry, and the paths that they allow, by hand.
WHERE: Final = {"path": {"prefix": {"value": "/in", "separator": "/"}}}
PATHS: Final = {"/in/a": True, "/inner": False}
#: How many requests a history of each scene has after the first three: for the command line, CI, and the nightly run.
QUICK: Final = {"power": 3, "lives": 1, "quotas": 4}
USUAL: Final = {"power": 4, "lives": 2, "quotas": 4}
DEEP: Final = {"power": 6, "lives": 3, "quotas": 5}

Message = dict[str, Any]


@dataclass
class Result:
    """What a search saw. `fired` counts, by rule, the messages that were let through; `found` is the first
    counterexample, as (what was broken, the history that breaks it)."""

    states: int = 0
    tried: int = 0
    exhausted: bool = False
    fired: Counter[str] = field(default_factory=Counter)
    found: tuple[str, tuple[str, ...]] | None = None


class Broken(Exception):
    """A promise or an invariant does not hold; `what` names it."""


class _Reading(Plain):
    """The specification's own reading: what constraints cover does not come from the kernel's code."""

    @staticmethod
    def member(members: Any, item: Any) -> bool:
        return item in members

    @staticmethod
    def covers(where: Any, args: Any) -> bool:
        return where is not None and PATHS[args["path"]]


@dataclass(frozen=True)
class _World:
    """A state of the interpreter with its marks, and how it came to be."""

    authority: Any
    marks: dict[str, dict[Any, Any]]
    before: Any
    said: str

    @cached_property
    def whole(self) -> dict[str, dict[Any, Any]]:
        return {**self.authority._state, **self.marks}

    def history(self) -> tuple[str, ...]:
        return (*self.before.history(), self.said) if self.before is not None else ()


class Search:
    """One exhaustive search of a kernel."""

    def __init__(self, kernel: Kernel, scene: str, requests: int) -> None:
        self._kernel = kernel
        self._rules = kernel.authority.RULES
        self._spec = Specification(_Reading, kernel.authority.FIELDS)
        self._where = kernel.constraint.parse_where(WHERE)
        self._most = 3 + requests
        self._scene = SCENES[scene]
        self.result = Result()

    def run(self, most_states: int = 1 << 60) -> Result:
        """Search until everything was seen, something is broken, or there are too many states."""
        first = _World(self._kernel.authority.Authority(QUORUM), {name: {} for name in MARKS}, None, "")
        waiting, seen = deque([first]), {_key(first)}
        try:
            self._invariants(first)
            while waiting:
                world = waiting.popleft()
                self.result.states += 1
                if self.result.states > most_states:
                    return self.result
                for then in self._steps(world):
                    key = _key(then)
                    if key not in seen:
                        seen.add(key)
                        self._invariants(then)
                        waiting.append(then)
            self.result.exhausted = True
        except Broken as broken:
            what, world = broken.args
            self.result.found = (what, world.history())
        return self.result

    def _steps(self, world: _World) -> Iterator[_World]:
        was = _copy(world.authority._state)
        for rule, message in self._messages(world):
            self.result.tried += 1
            allowed = world.authority.check(rule, message) is None
            if not allowed:
                if rule in TAKING and self._spec.heard(rule, world.whole, message):
                    raise Broken(f"{rule}: never refused", self._next(world, rule, message))
                self._refuse(world, rule, message)
                continue
            self.result.fired[rule] += 1
            yield self._accept(world, rule, message)
        if world.authority._state != was:
            raise Broken("a refusal changed something", world)

    def _refuse(self, world: _World, rule: str, message: Message) -> None:
        try:
            world.authority.apply(rule, message)
        except self._kernel.authority.Refused:
            return
        raise Broken(f"{rule}: done although refused", self._next(world, rule, message))

    def _next(self, world: _World, rule: str, message: Message) -> _World:
        said = " ".join(f"{name}={value}" for name, value in message.items() if name != "where")
        return _World(world.authority, world.marks, world, f"{rule} {said}")

    def _accept(self, world: _World, rule: str, message: Message) -> _World:
        spec, whole = self._spec, world.whole
        then = self._next(world, rule, message)
        for name, holds in spec.accepted(rule, whole, message):
            if holds is not True:
                raise Broken(f"{rule}: let through although not: {name}", then)
        made = self._kernel.authority.Authority({})
        made._state = _copy(world.authority._state)
        try:
            made.apply(rule, message)
        except self._kernel.authority.Refused as refused:
            raise Broken(f"{rule}: refused although allowed", then) from refused
        marks, made_of = _copy(world.marks), {}
        for name, key, value in list(spec.marks(rule, whole, message, True)):
            for one in key.keys if isinstance(key, Across) else (key,):
                made_of[name, one] = value(one) if isinstance(key, Across) else value
        for (name, one), value in made_of.items():
            marks[name][one] = value
        after = _World(made, marks, world, then.said)
        final = after.whole
        for values in self._values(after):
            for name, holds in spec.steps(rule, whole, final, message, values):
                if holds is not True:
                    raise Broken(f"{rule}: changed otherwise than: {name}", after)
        for call in self._calls(after, MOMENTS):
            if call["now"] < made.read("clock", ""):
                continue
            if made.check("invoke", call) is None and world.authority.check("invoke", call) is not None:
                if spec.gained(rule, whole, message, call) is not True:
                    raise Broken(f"{rule}: gave a power that it may not give", after)
        return after

    def _invariants(self, world: _World) -> None:
        spec, whole = self._spec, world.whole
        for values in self._values(world):
            for name, (_, formula) in INVARIANTS.items():
                if formula(spec, whole, values) is not True:
                    raise Broken(f"invariant: {name}", world)
        for agent in AGENTS:
            mine = [one for one in GRANTS if whole["owner"].get(one) == agent and whole["root"].get(one) == one]
            held = [one for one in mine if not whole["taken"].get(one, False)]
            if world.authority.read("agent_grants", agent) != len(held):
                raise Broken("an agent's grants are counted", world)

    def _values(self, world: _World) -> Iterator[Message]:
        """Every value of each sort; no formula is about two of one sort."""
        launches = [*_launches(world), -1]
        ids = ("l1", "k1", "c1", *GRANTS)
        for number in range(max(len(launches), 9)):
            yield {
                "act": tuple(QUORUM)[number % len(QUORUM)],
                "agent": (*AGENTS, "canary-k1", "")[number % 4],
                "module": (CODE, HOSTILE, STRANGE)[number % 3],
                "config": (CAGE, OTHER_CAGE)[number % 2],
                "grant": (*GRANTS, "")[number % 3],
                "id": ids[number % len(ids)],
                "other": (*GRANTS, "")[number // 3 % 3],
                "args": {"path": tuple(PATHS)[number % 2]},
                "key": ("k1", "k2")[number % 2],
                "launch": launches[number % len(launches)],
            }

    # Rule 1: the messages

    def _messages(self, world: _World) -> Iterator[tuple[str, Message]]:
        index = world.marks["length"].get("", 0)
        for now in MOMENTS:
            if index < self._most:
                for rule, message in self._requests(world, index, now):
                    yield rule, message
                    if rule in _WRONG and now == MOMENTS[0]:
                        for wrong in _WRONG[rule]:
                            yield rule, message | wrong
            for launch in _launches(world):
                for agent in AGENTS:
                    said = {"now": now, "launch": launch, "agent": agent}
                    for module, config in ((CODE, CAGE), (HOSTILE, CAGE), (CODE, OTHER_CAGE)):
                        yield "start", said | {"module": module, "config": config}
                    yield "refuse-launch", said
                    yield "exit", said
                yield "start", {
                    "now": now, "launch": launch, "agent": "canary-k1", "module": HOSTILE, "config": CAGE,
                }  # fmt: skip
        if index < self._most:
            for call in self._calls(world, MOMENTS):
                yield "invoke", call
        for launch in _launches(world):
            for grant in GRANTS if index < self._most else ():
                yield "drop", {"index": index, "now": 1, "launch": launch, "agent": "bee", "grant": grant}
            for child, to in ((launch, "bee"), (launch, "ant")):
                for wrong in ({}, {"calls": 2}, {"grant_expires": 4}, {"delegable": 1}, {"budget": 3}, {"grant": "g2"}):
                    yield "delegate", {
                        "now": 1, "launch": _launches(world)[0], "agent": "ant", "grant": "g1", "id": "g2",
                        "child": child, "to": to, "module": CODE, "config": CAGE, "tool": "tool", "where": self._where,
                        "calls": 1, "grant_expires": 2, "budget": 1, "delegable": 0, "args": {"path": "/in/a"}, **wrong,
                    }  # fmt: skip
        for intent in list(world.marks["owing"]):
            for spent in (0, 1, 2):
                yield "settle", {"now": 1, "intent": intent, "spent": spent}

    def _requests(self, world: _World, index: int, now: int) -> Iterator[tuple[str, Message]]:
        asked: Message = {
            "index": index, "now": now, "consents": 2, "not_before": 1, "expires": 3, "head": index,
            "head_known": True, "config": CAGE, "module": CODE,
        }  # fmt: skip
        if index < 3:  # a history begins with the approvals, in this order
            first: tuple[tuple[str, Message], ...] = (
                ("approve-module", {"id": "m1", "module": CODE, "canary": False}),
                ("approve-module", {"id": "m2", "module": HOSTILE, "canary": True}),
                ("approve-profile", {"id": "p1"}),
            )
            rule, message = first[index]
            yield rule, asked | message
            return
        for rule, about in self._scene:
            said: Message = {**asked, **about} if rule in _WRONG else {"index": index, "now": now, **about}
            if rule == "approve-call":
                said |= {"config": None, "module": None}
            yield rule, said | ({"where": self._where} if rule == "grant" else {})

    def _calls(self, world: _World, moments: tuple[int, ...]) -> Iterator[Message]:
        for launch in _launches(world):
            for agent in AGENTS:
                for grant in GRANTS:
                    for now in moments:
                        said: Message = {"now": now, "launch": launch, "agent": agent, "grant": grant}
                        said |= {"tool": "tool", "action": "act", "args": {"path": "/in/a"}, "args_digest": "d"}
                        index = world.marks["length"].get("", 0)
                        said |= {"index": index, "approval": "", "client": "", "client_args": {"path": "/in/a"}}
                        yield said
                        if now == moments[0]:
                            yield said | {"args": {"path": "/inner"}}
                            yield said | {"tool": "tool2"}
                            yield said | {"approval": "c1"}
                            yield said | {"approval": "c1", "args_digest": "e"}
                            yield said | {"client": "g2"}
                            yield said | {"action": "act2"}


def _grant(name: str, agent: str, until: int, calls: int) -> tuple[str, Message]:
    said = {"id": name, "agent": agent, "tool": "tool", "action": "act", "calls": calls, "grant_expires": until}
    said |= {"every": 0, "slack": 0, "cost": 1, "approvals": calls - 1, "budget": 2, "delegable": 1}
    return "grant", said


def _launch(name: str, agent: str, expires: int) -> tuple[str, Message]:
    return "launch", {"id": name, "agent": agent, "expires": expires}


def _challenge(agent: str, module: str) -> tuple[str, Message]:
    return "challenge", {"id": "k1", "agent": agent, "module": module, "config": CAGE, "expires": 3}


def _quota(name: str, agent: str, every: int, slack: int) -> tuple[str, Message]:
    return "set-quota", {"id": name, "agent": agent, "every": every, "slack": slack}


#: The scenes: which requests there are, and whether the monitor orders stops. Each is exhausted by itself; all of
#: them in one world would be the same bugs in a thousand times as many states.
SCENES: Final[Mapping[str, tuple[tuple[str, Message], ...]]] = {
    "power": (
        _launch("l1", "ant", 3),
        _grant("g1", "ant", 3, 1),
        _grant("g1", "ant", 2, 2),
        _grant("g2", "ant", 3, 1),
        _grant("g2", "bee", 3, 1),
        _launch("l2", "bee", 3),
        ("approve-call", {"id": "c1", "agent": "ant", "grant": "g1", "tool": "tool", "args_digest": "d"}),
        ("revoke", {"grant": "g1", "consents": 1}),
        ("revoke", {"grant": "g2", "consents": 0}),
        ("approve-module", {"id": "m1", "canary": True}),
        ("approve-module", {"id": "m3", "canary": True}),
    ),
    "lives": (
        _launch("l1", "ant", 3),
        _launch("l2", "ant", 2),
        _launch("l3", "bee", 3),
        _grant("g1", "ant", 3, 2),
        ("stop", {"agent": "ant", "consents": 1}),
        ("stop", {"agent": "ant", "consents": 0}),
        _challenge("canary-k1", HOSTILE),
        _challenge("canary-k1", CODE),
        _challenge("ant", HOSTILE),
        ("order-stop", {"launch": 3}),
        ("revoke", {"grant": "g1", "consents": 1}),
    ),
    "quotas": (
        _launch("l1", "ant", 3),
        ("grant", _grant("g1", "ant", 3, 2)[1] | {"approvals": 0}),
        _quota("q1", "ant", 1, 0),
        _quota("q2", "", 1, 0),
        _quota("q3", "bee", 1, 0),
    ),
}

#: What makes a lawful request unlawful, one thing at a time.
_LATE: Final = ({"expires": 1}, {"not_before": 2}, {"expires": 86_400_002}, {"head_known": False}, {"consents": 1})
_UNSEEN: Final = ({"head": 0}, {"module": HOSTILE}, {"module": STRANGE}, {"config": OTHER_CAGE})
_WRONG: Final[Mapping[str, tuple[Message, ...]]] = {
    "approve-module": _LATE,
    "approve-profile": _LATE,
    "approve-call": _LATE[:4],
    "set-quota": (*_LATE, {"head": 0}),
    "launch": (*_LATE, *_UNSEEN),
    "grant": (*_LATE, *_UNSEEN, {"grant_expires": 1}, {"calls": 0}),
}


def _launches(world: _World) -> list[int]:
    signed = {key[0] for key in world.marks["said_launch"]} if world.marks["said_launch"] else set()
    return sorted(signed | set(world.marks["hostile"]))


def _copy(state: dict[str, dict[Any, Any]]) -> dict[str, dict[Any, Any]]:
    return {name: dict(values) for name, values in state.items()}


def _key(world: _World) -> Any:
    return tuple(frozenset(values.items()) for values in world.whole.values())


def search(kernel: Kernel, depths: Mapping[str, int]) -> Result:
    """Every scene to its depth, until one finds something; the counts are of all of them."""
    whole = Result(exhausted=True)
    for scene, requests in depths.items():
        one = Search(kernel, scene, requests).run()
        whole.states += one.states
        whole.tried += one.tried
        whole.fired.update(one.fired)
        whole.exhausted = whole.exhausted and one.exhausted
        if one.found is not None:
            whole.found = one.found
            break
    return whole
