"""Every history of a small world, played on the running interpreter and held against the specification.

The solvers prove the table for unbounded worlds; they don't see the interpreter that runs it, nor the order of
constraints. Here `Authority` itself is driven, breadth first, through every history of a few agents, grants, launches
and moments, and after each message every promise and every invariant of the specification is evaluated plainly.

Rule 1: which messages there are is data (`scenes`), and includes those that must be refused: each lawful message, and
        each with one thing about it wrong.
Rule 2: a world is exhausted, or the result says that it was not.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from ironbound.core.logic import Across, Plain
from ironbound.verifier.proof.invariants import INVARIANTS
from ironbound.verifier.proof.specification import Specification
from ironbound.verifier.proof.vocabulary import MARKS, NUMBERED, TAKING

from . import scenes
from .load import Kernel
from .scenes import Message, Scene


@dataclass
class Result:
    """What a search saw. `fired` counts, by rule, the messages that were let through; `found` is the first
    counterexample, as (what was broken, the history that breaks it)."""

    states: int = 0
    tried: int = 0
    exhausted: bool = False
    fired: Counter[str] = field(default_factory=Counter)
    found: tuple[str, tuple[str, ...]] | None = None


_Call = tuple[int, str, str, int, int]


class Broken(Exception):
    """A promise or an invariant does not hold; `what` names it."""


class _Reading(Plain):
    """The specification's own reading: what constraints cover does not come from the kernel's code."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self._where = where

    @staticmethod
    def member(members: Any, item: Any) -> bool:
        return item in members

    def covers(self, where: Any, args: Any) -> bool:  # type: ignore[override]
        return any(where is one and args["path"] in scenes.ALLOWS[name] for name, one in self._where.items())

    @staticmethod
    def agree(one: Any, other: Any) -> bool:
        return bool(one == other)


@dataclass(frozen=True)
class _World:
    """A state of the interpreter with its marks, and how it came to be."""

    authority: Any
    marks: dict[str, dict[Any, Any]]
    before: Any
    said: str
    opened: int

    @cached_property
    def whole(self) -> dict[str, dict[Any, Any]]:
        return {**self.authority._state, **self.marks}

    @cached_property
    def key(self) -> Any:
        return tuple(frozenset(values.items()) for values in self.whole.values())

    def history(self) -> tuple[str, ...]:
        return (*self.before.history(), self.said) if self.before is not None else ()


class Search:
    """One exhaustive search of a kernel."""

    def __init__(self, kernel: Kernel, scene: str, entries: int) -> None:
        self._kernel = kernel
        self._where = {name: kernel.constraint.parse_where(value) for name, value in scenes.WHERE.items()}
        self._spec = Specification(_Reading(self._where), kernel.authority.FIELDS)
        self._scene: Scene = scenes.SCENES[scene]
        self._most = sum(rule in NUMBERED for rule, _ in self._scene.opening) + entries
        self._had: dict[Any, frozenset[_Call]] = {}
        self.result = Result()

    def run(self, most_states: int = 1 << 60) -> Result:
        """Search until everything was seen, something is broken, or there are too many states."""
        first = _World(self._kernel.authority.Authority(scenes.QUORUM), {name: {} for name in MARKS}, None, "", 0)
        waiting, seen = deque([first]), {first.key}
        try:
            self._invariants(first)
            while waiting:
                world = waiting.popleft()
                self.result.states += 1
                if self.result.states > most_states:
                    return self.result
                for then in self._steps(world):
                    if then.key not in seen:
                        seen.add(then.key)
                        self._invariants(then)
                        waiting.append(then)
            self.result.exhausted = True
        except Broken as broken:
            what, world = broken.args
            self.result.found = (what, world.history())
        return self.result

    def _steps(self, world: _World) -> Iterator[_World]:
        was = _copy(world.authority._state)
        opened = False
        for rule, message in self._messages(world):
            self.result.tried += 1
            allowed = world.authority.check(rule, message) is None
            if not allowed:
                if rule in TAKING and self._spec.heard(rule, world.whole, message):
                    raise Broken(f"{rule}: never refused", self._next(world, rule, message))
                self._refuse(world, rule, message)
                continue
            opened = True
            self.result.fired[rule] += 1
            yield self._accept(world, rule, message)
        if world.authority._state != was:
            raise Broken("a refusal changed something", world)
        if world.opened < len(self._scene.opening) and not opened:
            raise Broken("a lawful message is refused", world)

    def _refuse(self, world: _World, rule: str, message: Message) -> None:
        try:
            world.authority.apply(rule, message)
        except self._kernel.authority.Refused:
            return
        raise Broken(f"{rule}: done although refused", self._next(world, rule, message))

    def _next(self, world: _World, rule: str, message: Message) -> _World:
        said = " ".join(f"{name}={value}" for name, value in message.items() if name != "where")
        return _World(world.authority, world.marks, world, f"{rule} {said}", world.opened + 1)

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
        after = _World(made, marks, world, then.said, then.opened)
        final = after.whole
        values = self._values(after)
        for number in range(max(map(len, values.values()))):  # no step is about two values of different sorts
            chosen = {name: every[number % len(every)] for name, every in values.items()}
            for name, holds in spec.steps(rule, whole, final, message, chosen):
                if holds is not True:
                    raise Broken(f"{rule}: changed otherwise than: {name}", after)
        had = self._powers(world)
        for call in self._powers(after):
            said = self._call(after, call)
            if call in had or spec.gained(rule, whole, message, said) is True:
                continue
            if said["client"] == "" or world.authority.check("invoke", said | {"client": ""}) is not None:
                raise Broken(f"{rule}: gave a power that it may not give", after)
        return after

    def _powers(self, world: _World) -> frozenset[_Call]:
        """The calls that would be let through now or later, by the running guard."""
        if world.key not in self._had:
            check, clock = world.authority.check, world.authority.read("clock", "")
            self._had[world.key] = frozenset(
                call
                for call in self._calls(world)
                if call[3] >= clock and check("invoke", self._call(world, call)) is None
            )
        return self._had[world.key]

    def _invariants(self, world: _World) -> None:
        spec, whole = self._spec, world.whole
        values = self._values(world)
        for name, (wanted, formula) in INVARIANTS.items():
            for chosen in product(*(values[one] for one in wanted)):
                if formula(spec, whole, dict(zip(wanted, chosen, strict=True))) is not True:
                    raise Broken(f"invariant: {name}", world)
        for agent in self._scene.agents:
            held = [one for one in self._scene.grants if whole["owner"].get(one) == agent]
            held = [one for one in held if not whole["taken"].get(one, False)]
            human = sum(whole["root"].get(one) == one for one in held)
            if world.authority.read("agent_grants", agent) != human:
                raise Broken("an agent's grants are counted", world)
            if world.authority.read("agent_delegated", agent) != len(held) - human:
                raise Broken("what an agent was handed is counted", world)

    def _values(self, world: _World) -> dict[str, list[Any]]:
        """Every value of each sort."""
        return {
            "act": list(scenes.QUORUM),
            "agent": [*self._scene.agents, "canary-k1", ""],
            "module": [scenes.CODE, scenes.HOSTILE, scenes.STRANGE],
            "config": [scenes.CAGE, scenes.OTHER_CAGE],
            "grant": [*self._scene.grants, ""],
            "other": [*self._scene.grants, ""],
            "id": ["l1", "k1", "q1", "c1", "c2", "c3", *self._scene.grants],
            "args": [{"path": path} for path in scenes.PATHS],
            "key": ["k1", "k2"],
            "release": [scenes.RELEASE, scenes.OTHER_RELEASE, ""],
            "launch": [*_launches(world), -1],
        }

    # The messages

    def _messages(self, world: _World) -> Iterator[tuple[str, Message]]:
        scene, index = self._scene, world.marks["length"].get("", 0)
        asked: Message = {**scenes.ASKED, "index": index, "head": index, "now": scene.moments[0]}
        if world.opened < len(scene.opening):
            yield from self._request(*scene.opening[world.opened], asked)
            return
        if index < self._most:
            for rule, about in scene.requests:
                for now in scene.moments:
                    yield from self._request(rule, about, asked | {"now": now})
            for call in self._calls(world):
                yield "invoke", self._call(world, call)
        for rule, message in scene.acts:
            if rule not in NUMBERED or index < self._most:
                yield rule, self._filled({"index": index, **message})
        for launch in _launches(world):
            yield from self._of_launch(launch)
        for intent in list(world.marks["owing"]):
            for spent in (-1, 0, 1, 2, 3):
                yield "settle", {"now": 1, "intent": intent, "spent": spent}

    def _request(self, rule: str, about: Message, asked: Message) -> Iterator[tuple[str, Message]]:
        message = self._filled(asked | about)
        yield rule, message
        if asked["now"] == self._scene.moments[0]:
            for wrong in scenes.WRONG.get(rule, ()):
                yield rule, message | wrong

    def _filled(self, message: Message) -> Message:
        return message | {"where": self._where[message["where"]]} if "where" in message else message

    def _of_launch(self, launch: int) -> Iterator[tuple[str, Message]]:
        for now, agent, rule in product(self._scene.moments, self._scene.agents, self._scene.node):
            said = {"now": now, "launch": launch, "agent": agent}
            if rule == "start":
                lawful = said | {"module": scenes.CODE, "config": scenes.CAGE, "release": ""}
                for release in self._scene.releases:
                    yield rule, lawful | {"release": release}
                yield rule, lawful | {"module": scenes.HOSTILE}
                yield rule, lawful | {"config": scenes.OTHER_CAGE}
            else:
                yield rule, said
        if "start" in self._scene.node:
            said = {"now": 1, "launch": launch, "agent": "canary-k1", "module": scenes.HOSTILE, "config": scenes.CAGE}
            yield "start", said | {"release": ""}

    def _calls(self, world: _World) -> Iterator[_Call]:
        """Every call of the scene, as a launch and its agent, a grant, a moment and the number of what is varied."""
        agents = {key[0]: key[1] for key in world.marks["said_launch"]}
        scene = self._scene
        for launch, agent, grant, now in product(_launches(world), scene.agents, scene.grants, scene.moments):
            for number in range(len(scene.calls) if agents.get(launch) == agent else 1):
                yield launch, agent, grant, now, number

    def _call(self, world: _World, call: _Call) -> Message:
        launch, agent, grant, now, number = call
        said = {"index": world.marks["length"].get("", 0), "now": now, "launch": launch, "agent": agent, "grant": grant}
        return scenes.CALL | said | self._scene.calls[number]


def _launches(world: _World) -> list[int]:
    return sorted({key[0] for key in world.marks["said_launch"]} | set(world.marks["hostile"]))


def _copy(state: dict[str, dict[Any, Any]]) -> dict[str, dict[Any, Any]]:
    return {name: dict(values) for name, values in state.items()}


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
