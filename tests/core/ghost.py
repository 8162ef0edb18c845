"""A second opinion on who may do what: naive, slow, and driven only by what humans validly signed.

It shares no code with the kernel. It is told what each message is and whether its signatures are good (the test that
made them knows), and says whether the message may have an effect, and which calls may go through afterwards. `run`
plays a random history against the real replay and raises AssertionError where the two disagree.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ironbound.core.canonical import sha256_hex
from ironbound.core.envelope import sign_envelope
from ironbound.core.replay import delegated_id
from ironbound.core.request import NO_LIMITS
from ironbound.core.surface import approval_body
from verifier.lab import DAY, Lab, config, digest_of, probe, wasm

AGENTS = ("ant", "bee")
TOOLS = ("read", "write")
PATHS = ("in", "out")


@dataclass
class Ghost:
    """What the humans said, in lists."""

    modules: dict[str, str] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    launches: dict[int, dict[str, Any]] = field(default_factory=dict)
    grants: dict[str, dict[str, Any]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    changed: dict[str, int] = field(default_factory=dict)
    allowed: Counter[str] = field(default_factory=Counter)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    time: int = 0

    def line(self, grant: str) -> list[str]:
        """The grant and all that it was handed on from."""
        found = [grant]
        while self.grants[found[-1]]["parent"]:
            found.append(self.grants[found[-1]]["parent"])
        return found

    def lives(self, grant: str, now: int) -> bool:
        line = [self.grants[one] for one in self.line(grant)]
        revoked = set(self.line(grant)) & self.revoked
        return not revoked and all(one["left"] > 0 and now < one["until"] for one in line)

    def may_hand_on(self, part: dict[str, Any], now: int) -> bool:
        now = max(now, self.time)
        runs, child = self.launches[part["launch"]], self.launches[part["child"]]
        if part["grant"] not in self.grants:
            return False
        whole = self.grants[part["grant"]]
        line = [self.grants[one] for one in self.line(part["grant"])]
        clash = any(
            self.lives(name, now) and (one["agent"], one["tool"]) == (part["to"], part["tool"])
            for name, one in self.grants.items()
        )
        named = self.names.get((part["to"], part["tool"]))
        clash = clash or (named is not None and self.grants[named]["parent"] is None)
        handed = [one for name, one in self.grants.items() if one["parent"] and name not in self.revoked]
        return (
            runs["state"] == child["state"] == "started"
            and not (runs["stopped"] or child["stopped"] or runs["canary"] or child["canary"])
            and part["agent"] == runs["agent"] == whole["agent"] != part["to"] == child["agent"]
            and (runs["module"], runs["config"]) == (whole["module"], whole["config"])
            and not set(self.line(part["grant"])) & self.revoked
            and all(now < one["until"] for one in line)
            and part["path"] == whole["path"]
            and 0 < part["calls"] <= whole["left"]
            and now < part["until"] <= whole["until"]
            and part["delegable"] < whole["delegable"]
            and not clash
            and sum(one["agent"] == part["to"] for one in handed) < 64
        )

    def running(self, agent: str) -> bool:
        return any(one["agent"] == agent and one["state"] != "ended" for one in self.launches.values())

    def may_call(self, launch: int, agent: str, grant: str, tool: str, path: str, now: int) -> bool:
        now = max(now, self.time)
        if launch not in self.launches or grant not in self.grants:
            return False
        runs, one = self.launches[launch], self.grants[grant]
        return (
            runs["state"] == "started"
            and not runs["stopped"]
            and not runs["canary"]
            and agent == runs["agent"] == one["agent"]
            and (runs["module"], runs["config"]) == (one["module"], one["config"])
            and self.modules.get(one["module"]) == "agent"
            and one["config"] in self.profiles
            and tool == one["tool"]
            and path == one["path"]
            and self.lives(grant, now)
        )

    def may_ask(self, asked: dict[str, Any], consents: int, now: int) -> bool:
        now = max(now, self.time)
        kind = asked["kind"]
        if kind in ("revocation", "stop"):
            return True
        if consents < 2 or asked["id"] in self.ids:
            return False
        if not asked["not_before_ms"] <= now < asked["expires_ms"] <= asked["not_before_ms"] + DAY:
            return False
        if kind == "module-approval":
            return asked["module_sha256"] not in self.modules
        if kind == "profile-approval":
            return True
        if asked["head"] < self.changed.get(asked["agent"], 0):
            return False
        if self.modules.get(asked["module_sha256"]) != "agent" or asked["config_sha256"] not in self.profiles:
            return False
        if kind == "launch-request":
            return not self.running(asked["agent"])
        clash = any(
            self.lives(name, now)
            and (one["agent"], one["tool"], one["parent"]) == (asked["agent"], asked["body"]["tool"], None)
            for name, one in self.grants.items()
        )
        return asked["id"] not in self.revoked and now < asked["body"]["expires_ms"] and not clash

    def asks(self, asked: dict[str, Any], index: int, now: int) -> None:
        self.time = max(self.time, now)
        kind, body = asked["kind"], asked["body"]
        if kind not in ("revocation", "stop"):
            self.ids.add(asked["id"])
        if kind == "module-approval":
            self.modules[asked["module_sha256"]] = body["kind"]
        elif kind == "profile-approval":
            self.profiles.append(asked["config_sha256"])
        elif kind == "revocation":
            one = self.grants.get(body["grant"])
            if one is not None and one["parent"] is None and body["grant"] not in self.revoked:
                self.changed[self.grants[body["grant"]]["agent"]] = index + 1
            self.revoked.add(body["grant"])
        elif kind == "stop":
            self.changed[asked["agent"]] = index + 1
            mine = [one for one in self.launches if self.launches[one]["agent"] == asked["agent"]]
            if mine:
                self.launches[max(mine)]["stopped"] = True
        elif kind == "launch-request":
            self.changed[asked["agent"]] = index + 1
            self.admit(index, asked["agent"], asked["module_sha256"], asked["config_sha256"], asked["expires_ms"])
        else:
            self.changed[asked["agent"]] = index + 1
            self.names[asked["agent"], body["tool"]] = asked["id"]
            self.grants[asked["id"]] = {
                "agent": asked["agent"], "module": asked["module_sha256"], "config": asked["config_sha256"],
                "tool": body["tool"], "path": body["where"]["path"]["equals"], "left": body["calls"],
                "calls": body["calls"], "until": body["expires_ms"], "parent": None, "delegable": body["delegable"],
            }  # fmt: skip

    def admit(self, index: int, agent: str, module: str, cage: str, expires: int, canary: bool = False) -> None:
        self.launches[index] = {
            "agent": agent, "module": module, "config": cage, "state": "admitted", "stopped": False, "canary": canary,
            "expires": expires,
        }  # fmt: skip


class History:
    """A lab and its ghost, moving on together."""

    def __init__(self, seed: int, lab: Lab | None = None) -> None:
        self.random = random.Random(seed)
        self.lab = lab or Lab(now=1_800_000_000_000)
        self.lab.announce()
        self.ghost = Ghost()
        self.modules = [sha256_hex(wasm(str(number))) for number in range(3)]
        self.cages = [digest_of(str(config(max_fuel=number + 1))) for number in range(2)]
        self.asked: list[tuple[dict[str, Any], Any, list[Any]]] = []
        self.happened: Counter[str] = Counter()
        for module in (self.modules[0], self.modules[2]):
            self.put_whole("module-approval", self.module_fields(module))
        self.put_whole("profile-approval", {"config_sha256": self.cages[0], "body": {"profile": "p", "layers": []}})
        about = {"module_sha256": self.modules[0], "config_sha256": self.cages[0]}
        for agent in AGENTS:
            self.put_whole("launch-request", {"agent": agent, **about})
        while any(one["state"] == "admitted" for one in self.ghost.launches.values()):
            self.start()

    def put_whole(self, kind: str, fields: dict[str, Any]) -> None:
        """A request without a defect, approved."""
        request = self.lab.request(kind, "ada", **fields)
        self.put(self.read(kind, request), request, [self.lab.approval(request, "bob")], True)

    def module_fields(self, module: str) -> dict[str, Any]:
        canary = module == self.modules[2]
        body = approval_body(b"{", probe("p") if canary else None)
        return {"module_sha256": module, "body": body}

    def step(self) -> None:
        pick = self.random.choices
        do = pick(
            (
                self.ask,
                self.start,
                self.end,
                self.call,
                self.challenge,
                self.order,
                self.again,
                self.noise,
                self.hand_on,
                self.drop,
            ),
            weights=(8, 5, 2, 9, 0.7, 0.4, 2, 0.5, 4, 0.3),
        )[0]
        if self.random.random() < 0.015:
            self.lab.now += self.random.choice((400_000, 700_000))
        before = self.powers()
        do()
        after = self.powers()
        allowed = {one for one in self.candidates() if self.ghost.may_call(*one, self.lab.now)}
        assert after == allowed, f"{do.__name__}: the kernel lets {after ^ allowed} differ from what humans signed"
        if do in (self.end, self.order, self.noise, self.call, self.challenge, self.drop):
            assert after <= before, f"{do.__name__} gave power"
        self.holds_what_humans_gave()

    def candidates(self) -> list[tuple[int, str, str, str, str]]:
        recent = sorted(self.ghost.launches)[-4:]
        return [
            (launch, agent, grant, tool, path)
            for launch in recent
            for agent in {self.ghost.launches[launch]["agent"], *AGENTS}
            for grant in self.ghost.grants
            for tool in {*TOOLS, self.ghost.grants[grant]["tool"]}
            for path in PATHS
        ]

    def powers(self) -> set[tuple[int, str, str, str, str]]:
        """What the guard of `invoke` really lets through."""
        check = self.lab.replay.authority.check
        return {
            one
            for one in self.candidates()
            if check("invoke", {
                "launch": one[0], "agent": one[1], "grant": one[2], "tool": one[3], "action": "scratch.write",
                "args": {"path": one[4]}, "now": self.lab.now, "approval": "", "client": "", "client_args": {},
                "args_digest": "",
            }) is None
        }  # fmt: skip

    def holds_what_humans_gave(self) -> None:
        for name, one in self.ghost.grants.items():
            left = self.lab.replay.authority.read("grant_left", name)
            assert left == one["left"] == one["calls"] - self.ghost.allowed[name] >= 0, "calls are not conserved"
            assert self.lab.replay.authority.read("grant_line", name) == set(self.ghost.line(name))
        for agent in AGENTS:
            mine = {name for name, one in self.ghost.grants.items() if one["agent"] == agent} - self.ghost.revoked
            held = {name for name in mine if self.ghost.grants[name]["parent"] is None}
            assert self.lab.replay.authority.read("agent_delegated", agent) == len(mine - held)
            assert set(self.lab.replay.holds(agent)) == held
            assert self.lab.replay.authority.read("agent_grants", agent) == len(held)

    def expect(self, what: str, entry: Any, may: bool) -> bool:
        assert (entry.void is None) == may, f"{what}: ghost says {may}, the log says {entry.void or 'yes'}"
        self.happened[f"{what} {'yes' if may else 'no'}"] += 1
        return may

    def one_of(self, values: Any) -> Any:
        values = list(values)
        return self.random.choice(values) if values else None

    # Humans

    def fields(self) -> tuple[str, dict[str, Any]]:
        kind = self.random.choices(
            ("module-approval", "profile-approval", "launch-request", "grant", "revocation", "stop"),
            weights=(1, 0.5, 7, 8, 1.5, 0.5),
        )[0]
        about = {
            "agent": self.one_of(AGENTS),
            "module_sha256": self.random.choices(self.modules, weights=(9, 1, 1))[0],
            "config_sha256": self.random.choices(self.cages, weights=(9, 1))[0],
        }
        if kind == "module-approval":
            return kind, self.module_fields(about["module_sha256"])
        if kind == "profile-approval":
            return kind, {"config_sha256": about["config_sha256"], "body": {"profile": "p", "layers": []}}
        if kind == "revocation":
            return kind, about | {"body": {"grant": self.one_of(self.ghost.grants) or "ab" * 16}}
        if kind != "grant":
            return kind, about
        until = self.lab.now + self.random.choice((5, 300_000, 600_000, 600_000))
        return kind, about | {"body": {
            "tool": self.one_of(TOOLS), "action": "scratch.write", "where": {"path": {"equals": self.one_of(PATHS)}},
            "calls": self.random.randint(1, 4), "expires_ms": until, "credential": None, **NO_LIMITS,
            "delegable": self.random.choice((0, 1, 2)),
        }}  # fmt: skip

    def ask(self) -> None:
        kind, fields = self.fields()
        defect = self.random.choice((None,) * 8 + ("alone", "same twice", "self", "forged", "stranger", "service",
                                                   "other content", "expired", "early", "long", "used"))  # fmt: skip
        if defect == "expired":
            fields |= {"expires_ms": self.lab.now - 1}
        if defect == "early":
            fields |= {"not_before_ms": self.lab.now + 300_000}
        if defect == "long":
            fields |= {"expires_ms": self.lab.now + 2 * DAY}
        if defect == "used" and self.ghost.ids and kind != "grant":
            fields |= {"id": self.one_of(sorted(self.ghost.ids))}
        who = self.one_of(("ada", "bob"))
        other = {"ada": "bob", "bob": "ada"}[who]
        request = self.lab.request(kind, who, **fields)
        approvals = [self.lab.approval(request, other)]
        good = True
        if kind in ("revocation", "stop"):
            approvals = []
        elif defect == "alone":
            approvals = []
        elif defect == "same twice":
            approvals, good = approvals * 2, False
        elif defect == "self":
            approvals, good = [self.lab.approval(request, who)], False
        elif defect == "other content":
            approvals, good = [self.lab.approval(self.lab.request(kind, who, **fields | {"ticket": "x"}), other)], False
        if defect in ("forged", "stranger", "service"):
            good = False
            signer = self.one_of(self.lab.services.values()) if defect == "service" else self.lab.log.key
            forged = type(request)(request.payload, (sign(request.payload, signer),))
            if defect == "forged":
                payload = request.payload.replace(b'"ticket":""', b'"ticket":"y"')
                forged = type(request)(payload, request.signatures)
            request = forged
        asked = self.read(kind, request)
        if good:
            self.asked.append((asked, request, approvals))
        self.put(asked, request, approvals, good)

    @staticmethod
    def read(kind: str, request: Any) -> dict[str, Any]:
        said = json.loads(request.payload)["predicate"]
        return {"kind": kind, "head": said["log_head"]["size"], **said}

    def put(self, asked: dict[str, Any], request: Any, approvals: list[Any], good: bool) -> None:
        at = self.lab.now + self.lab.step_ms
        consents = 1 + len(approvals)
        may = good and self.ghost.may_ask(asked, consents, at)
        if good and asked["kind"] in ("launch-request", "grant"):
            held = sorted(self.lab.replay.holds(asked["agent"]))
            may = may and asked["capability"]["before"] == held
        entry = self.lab.admit(request, approvals)
        if self.expect(asked["kind"], entry, may):
            self.ghost.asks(asked, entry.index, at)

    def again(self) -> None:
        """Somebody submits an old request again, as it was or with its approvals gone."""
        if self.asked:
            asked, request, approvals = self.one_of(self.asked)
            self.put(asked, request, approvals[: self.random.randint(0, 1)], True)

    # Services: nothing that they say gives anything that humans didn't.

    def start(self) -> None:
        waiting = [one for one, launch in self.ghost.launches.items() if launch["state"] == "admitted"]
        index = self.one_of(waiting) if self.random.random() < 0.7 else self.one_of(self.ghost.launches)
        if index is None:
            return
        launch = self.ghost.launches[index]
        wrong = self.random.choice((None,) * 6 + ("agent", "module_sha256", "config_sha256"))
        fields = {"agent": launch["agent"], "module_sha256": launch["module"], "config_sha256": launch["config"]}
        if wrong:
            fields[wrong] = "other" if wrong == "agent" else digest_of("other")
        account = {"launch": index, "runtime": "wasmtime", "runtime_sha256": digest_of("r"), "envelope": {}, "pid": 9,
                   "pid_start": 1, "boot_id": "b", "uid": 1, "posture": {}, "probes": []} | fields  # fmt: skip
        seen = self.random.choice((True,) * 8 + (False,))
        held = self.lab.held(account, signer=None if seen else self.lab.services["node"])
        now = max(self.lab.now + self.lab.step_ms, self.ghost.time)
        may = (
            seen and wrong is None and launch["state"] == "admitted" and not launch["stopped"]
            and now < launch["expires"]
        )  # fmt: skip
        entry = self.lab.say("node", "started", **account, held=held, quote=None)
        if self.expect("start", entry, may):
            self.ghost.time = now
            launch |= {"state": "started", "started": entry.index}

    def end(self) -> None:
        index = self.one_of(self.ghost.launches)
        if index is None:
            return
        launch = self.ghost.launches[index]
        now = max(self.lab.now + self.lab.step_ms, self.ghost.time)
        if self.random.random() < 0.5:
            entry = self.lab.say("node", "launch-refused", launch=index, agent=launch["agent"], stage="s", reason="r",
                                 text="", module_sha256=launch["module"], config_sha256=None)  # fmt: skip
            may = launch["state"] == "admitted"
        else:
            usage = dict.fromkeys(("messages", "fuel", "wall_ms", "cpu_ms", "max_rss"), 0)
            entry = self.lab.say("node", "exited", launch=index, agent=launch["agent"], reason="r", text="", report="",
                                 started=launch.get("started", 0), usage=usage)  # fmt: skip
            may = launch["state"] == "started"
        if self.expect("end", entry, may):
            self.ghost.time = now
            launch["state"] = "ended"

    def call(self) -> None:
        could = [one for one in self.candidates() if self.ghost.may_call(*one, self.lab.now)]
        one = self.one_of(could) if could and self.random.random() < 0.6 else self.one_of(self.candidates())
        if one is None:
            return
        at = self.lab.now + self.lab.step_ms
        if self.random.random() < 0.2:
            at -= 500_000  # a gateway that dates its word back
        may = self.ghost.may_call(*one, at)
        launch, agent, grant, tool, path = one
        entry = self.lab.intent(agent, launch, grant, tool=tool, args={"path": path}, at_ms=at)
        if self.expect("call", entry, may):
            self.ghost.time = max(self.ghost.time, at)
            for charged in self.ghost.line(grant):
                self.ghost.allowed[charged] += 1
                self.ghost.grants[charged]["left"] -= 1

    # Agents: what they hand on is a part of what they hold.

    def hand_on(self) -> None:
        runs = self.ghost.launches
        running = [one for one, launch in runs.items() if launch["state"] == "started"]
        likely = [
            (grant, launch, child)
            for grant, whole in self.ghost.grants.items()
            if whole["delegable"] and self.ghost.lives(grant, self.lab.now)
            for launch in running
            if runs[launch]["agent"] == whole["agent"]
            for child in running
            if child != launch
        ]
        anything = (self.one_of(self.ghost.grants), self.one_of(runs), self.one_of(runs))
        grant, launch, child = self.one_of(likely) if likely and self.random.random() < 0.8 else anything
        if grant is None or launch is None or child is None:
            return
        whole = self.ghost.grants[grant]
        agent, to = self.ghost.launches[launch]["agent"], self.ghost.launches[child]["agent"]
        if self.random.random() < 0.1:
            agent = self.one_of(AGENTS)
        path = whole["path"] if self.random.random() < 0.8 else self.one_of(PATHS)
        part = {
            "launch": launch, "agent": agent, "grant": grant, "child": child, "to": to,
            "tool": self.one_of((*TOOLS, "u", "v")), "path": path,
            "calls": self.random.randint(1, 3), "delegable": self.random.choice((0, 0, 1)),
            "until": whole["until"] - self.random.choice((0, 100_000, 100_000, -1)),
        }  # fmt: skip
        at = self.lab.now + self.lab.step_ms
        may = self.ghost.may_hand_on(part, at)
        entry = self.lab.say(
            "gateway", "delegated", agent=agent, launch=launch, grant=grant, to=to, child=child, tool=part["tool"],
            where={"path": {"equals": path}}, calls=part["calls"], expires_ms=part["until"], budget=0,
            delegable=part["delegable"],
        )  # fmt: skip
        if self.expect("hand on", entry, may):
            self.ghost.time = max(self.ghost.time, at)
            told = self.ghost.launches[child]
            self.ghost.names[to, part["tool"]] = delegated_id(entry.predicate["id"])
            self.ghost.grants[delegated_id(entry.predicate["id"])] = {
                "agent": to, "module": told["module"], "config": told["config"], "tool": part["tool"], "path": path,
                "left": part["calls"], "calls": part["calls"], "until": part["until"], "parent": grant,
                "delegable": part["delegable"],
            }  # fmt: skip

    def drop(self) -> None:
        grant, launch = self.one_of(self.ghost.grants), self.one_of(self.ghost.launches)
        if grant is None or launch is None:
            return
        runs, one = self.ghost.launches[launch], self.ghost.grants[grant]
        at = self.lab.now + self.lab.step_ms
        may = runs["state"] == "started" and not runs["stopped"] and not runs["canary"]
        may = may and runs["agent"] == one["agent"]
        entry = self.lab.say("gateway", "dropped", agent=runs["agent"], launch=launch, grant=grant)
        if self.expect("drop", entry, may):
            self.ghost.time = max(self.ghost.time, at)
            if one["parent"] is None and grant not in self.ghost.revoked:
                self.ghost.changed[one["agent"]] = entry.index + 1
            self.ghost.revoked.add(grant)

    def challenge(self) -> None:
        module, cage = self.one_of(self.modules), self.one_of(self.cages)
        at = self.lab.now + self.lab.step_ms
        nonce = self.one_of(sorted(self.ghost.ids)) if self.ghost.ids and self.random.random() < 0.3 else None
        nonce = nonce or self.lab.fresh()
        may = self.ghost.modules.get(module) == "canary" and cage in self.ghost.profiles
        may = may and all(one["agent"] != f"canary:{nonce}" for one in self.ghost.launches.values())
        entry = self.lab.say_challenge(module, cage, "p", nonce=nonce)
        if self.expect("challenge", entry, may):
            self.ghost.time = max(self.ghost.time, at)
            self.ghost.admit(entry.index, f"canary:{nonce}", module, cage, at + 60_000, canary=True)

    def order(self) -> None:
        drift = self.lab.expect(self.lab.drift(None))
        index = self.one_of(self.ghost.launches)
        at = self.lab.now + self.lab.step_ms
        entry = self.lab.stop_order(drift, index)
        self.expect("order", entry, True)
        if index is not None:
            self.ghost.time = max(self.ghost.time, at)
            self.ghost.launches[index]["stopped"] = True

    def noise(self) -> None:
        """Words that change nothing, and entries from mouths that may not say them."""
        kind, fields = self.fields()
        request = self.lab.request(kind, "ada", **fields)
        approvals = [self.lab.approval(request, "bob").as_value()]
        for role in ("node", "gateway", "monitor"):
            entry = self.lab.say(role, "admitted", request=request.as_value(), approvals=approvals)
            assert entry.void == "voice-not-entitled"
        assert self.lab.append(request.encode()).void == "voice-unknown"
        assert self.lab.append(b"garbage").void == "entry-malformed"
        assert self.lab.append(self.lab.entries[-3]).void in ("voice-not-entitled", "said-twice")


def sign(payload: bytes, signer: Any) -> Any:
    return sign_envelope(payload, [signer]).signatures[0]


def played(seed: int, steps: int, lab: Lab | None = None) -> History:
    """A history of that many random steps."""
    history = History(seed, lab)
    for _ in range(steps):
        history.step()
    return history


def run(seed: int, steps: int) -> Counter[str]:
    """Plays `steps` random steps; how often each thing happened and was refused."""
    return played(seed, steps).happened


if __name__ == "__main__":
    for number in range(6):
        run(number, 250)
