"""A deployment in memory: real keys, real signatures, real statements, the real replay; only the machine is missing.

Every scenario starts from the same honest voices and then does one thing wrong.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import resources
from typing import Any

from ironbound.core import authority
from ironbound.core.canonical import b64encode, canonical, sha256_hex
from ironbound.core.channel import SURFACE_FILE
from ironbound.core.checkpoint import Checkpoint, cosign_checkpoint, sign_checkpoint
from ironbound.core.envelope import Envelope, parse_envelope, sign_envelope
from ironbound.core.held import account_digest
from ironbound.core.keys import PrivateKey
from ironbound.core.malformed import Attempt, attempts, once_more
from ironbound.core.merkle import EMPTY_ROOT
from ironbound.core.note import COSIGNATURE, Signer, add_lines
from ironbound.core.posture import expected_posture
from ironbound.core.release import files_root
from ironbound.core.replay import Entry, Replay
from ironbound.core.request import NO_LIMITS, encode_approval, encode_decline, encode_request, head_of
from ironbound.core.roster import body_digest
from ironbound.core.statement import QUORUMS, Subject, encode_statement
from ironbound.core.surface import approval_body
from ironbound.core.tile import ENTRIES, encode_entries, tiles_for
from ironbound.core.tpm import measured, qualifying
from ironbound.core.trust import Pin, parse_trust_root
from ironbound.evidence.writer import write_members
from ironbound.verifier.claims import HOLDS
from ironbound.verifier.deployed import package_of
from ironbound.verifier.kernel import kernel_digest
from ironbound.verifier.power import Kept
from ironbound.verifier.proved import questions
from ironbound.verifier.release import Shipped
from ironbound.verifier.verify import Report, verify_bundle

from .quoter import Quoter
from .released import files_of, statements

DAY = 86_400_000
#: What nothing says of a log whose trust root names no release key.
OF_RELEASES = {"E1", "E2", "E3"}
ORIGIN = "lab.example/log"
ROLES = ("controller", "node", "gateway", "monitor")
#: The agent surface that the lab's gateways show: the one that ships.
SURFACE = (resources.files("ironbound") / SURFACE_FILE).read_bytes()


def key(name: str) -> PrivateKey:
    return PrivateKey.generate(sha256(name.encode()).digest())


def digest_of(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def _leb(number: int) -> bytes:
    out = b""
    while True:
        byte, number = number & 0x7F, number >> 7
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


def _section(kind: int, items: Sequence[bytes]) -> bytes:
    body = _leb(len(items)) + b"".join(items)
    return bytes([kind]) + _leb(len(body)) + body


def _name(text: str) -> bytes:
    return _leb(len(text)) + text.encode()


def wasm(
    label: str = "agent",
    *,
    imports: Sequence[tuple[str, str]] = (),
    exports: Sequence[str] = ("memory", "alloc", "handle"),
    pages: int = 1,
) -> bytes:
    """A core module with the sandbox's ABI; `label` makes its digest its own."""
    kinds = {"memory": (2, 0), "alloc": (0, len(imports)), "handle": (0, len(imports) + 1)}
    types = [b"\x60\x01\x7f\x01\x7f", b"\x60\x02\x7f\x7f\x01\x7e"]
    body = [b"\x04\x00\x41\x00\x0b", b"\x04\x00\x42\x00\x0b"]
    custom = _name("label") + label.encode()
    return b"".join(
        [
            b"\x00asm\x01\x00\x00\x00",
            b"\x00" + _leb(len(custom)) + custom,
            _section(1, types),
            _section(2, [_name(a) + _name(b) + b"\x00\x00" for a, b in imports]) if imports else b"",
            _section(3, [b"\x00", b"\x01"]),
            _section(5, [b"\x00" + _leb(pages)]),
            _section(7, [_name(one) + bytes(kinds[one]) for one in exports]),
            _section(10, body),
        ]
    )


def config(**runtime: Any) -> dict[str, Any]:
    """An effective configuration."""
    return {
        "version": 1,
        "profile": "strict",
        "runtime": {
            "type": "wasmtime",
            "strict_security": True,
            "disallowed_imports": ["wasi_snapshot_preview1", "*"],
            "max_memory": 16,
            "max_fuel": 1_000_000,
            "max_wall_clock": 60,
            "max_stack": 512,
            "max_instances": 1,
            "max_tables": 1,
            "max_table_elements": 100,
            "max_module_size": 1_000_000,
        }
        | runtime,
        "channel": {"max_message": 65_536, "max_messages_per_second": 100},
        "scratch": {"max_bytes": 1_000_000, "max_files": 10},
    }


def verdict(**fields: Any) -> dict[str, Any]:
    """A solver's, to whom every question was answered well."""
    held = {"held": questions()[1], "possible": len(authority.RULES), "failed": 0, "named": []}
    return {"solver": "z3", "version": "4.15.0", "took_ms": 4_000} | held | fields


def probe(name: str, family: str = "wasm") -> dict[str, Any]:
    """A canary's probe document."""
    return {
        "probe": name,
        "family": family,
        "module": f"{name}.wasm" if family == "wasm" else "probe",
        "about": "tries what it may not",
        "stage": "channel",
        "reasons": ["finished"],
        "attempts": 2,
        "refusal": "method not found",
        "controls": ["AC-6(10)"],
    }


@dataclass
class Lab:
    """One deployment and its log so far. Every step takes `step_ms` of its clock."""

    now: int = 1_800_000_000_000
    step_ms: int = 10
    separation: str = "user"
    environment: str = "production"
    quoter: Quoter | None = None
    canary_interval_ms: int = DAY
    drift_stop_ms: int = 5_000
    heartbeat_ms: int = 365 * DAY
    break_glass: Mapping[str, Any] | None = None
    releases: bool = False
    release_key: PrivateKey = field(default_factory=lambda: key("release"))
    #: What the release key signs otherwise than an honest one would (see `released.statements`).
    signs: Mapping[str, Any] = field(default_factory=dict)
    replay: Replay = field(default_factory=Replay)
    entries: list[bytes] = field(default_factory=list)
    said: list[Entry] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    _serial: int = 0
    _approved: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.log = Signer(ORIGIN, key("log"))
        self.witness = Signer("witness.example", key("witness"))
        self.policy = f"log {self.log.verifier().vkey}\nwitness w {self.witness.verifier(COSIGNATURE).vkey}\nquorum w\n"
        self.humans = {name: key(name) for name in ("ada", "bob", "cy")}
        self.services = {role: key(role) for role in ROLES}
        self.append(self._trust_root().encode())

    def _trust_root(self) -> Envelope:
        def public(one: PrivateKey) -> dict[str, Any]:
            return {"scheme": "ed25519", "public": b64encode(one.public.raw)}

        body = {
            "version": 1,
            "deployment": "lab",
            "environment": self.environment,
            "created_ms": self.now,
            "operators": [
                {"name": name, "keys": [public(one)], "acts": list(QUORUMS)} for name, one in self.humans.items()
            ],
            "quorum": dict.fromkeys(QUORUMS, 2),
            "break_glass": self.break_glass,
            "services": {role: public(one) for role, one in self.services.items()},
            "log": {"origin": ORIGIN, "vkey": self.log.verifier().vkey},
            "witness_policy": self.policy,
            "separation": {"mode": self.separation, "users": {}},
            "bounds": {
                "drift_stop_ms": self.drift_stop_ms,
                "canary_interval_ms": self.canary_interval_ms,
                "heartbeat_ms": self.heartbeat_ms,
            },
            "release": public(self.release_key) if self.releases else None,
            "tpm": None if self.quoter is None else self.quoter.enrolment,
        }
        payload = encode_statement("trust-root", (Subject("lab", digest_of("lab")),), body)
        return sign_envelope(payload, list(self.humans.values()))

    # Saying things

    def append(self, data: bytes) -> Entry:
        self.entries.append(data)
        self.said.append(self.replay.apply(data))
        return self.said[-1]

    def fresh(self) -> str:
        self._serial += 1
        return sha256(f"id {self._serial}".encode()).hexdigest()[:32]

    def statement(self, kind: str, fields: Mapping[str, Any]) -> bytes:
        """A service's statement now."""
        self.now += self.step_ms
        said = {"id": self.fresh(), "deployment": "lab", "at_ms": self.now} | dict(fields)
        return encode_statement(kind, (Subject("lab", digest_of(kind)),), said)

    def say(self, voice: str, entry_kind: str, *, signer: PrivateKey | None = None, **fields: Any) -> Entry:
        payload = self.statement(entry_kind, fields)
        return self.append(sign_envelope(payload, [signer or self.services[voice]]).encode())

    def expect(self, entry: Entry) -> int:
        """The index of an entry that has its effect."""
        assert entry.void is None, (entry.kind, entry.void, entry.detail)
        return entry.index

    # What operators do

    def request(self, kind: str, who: str = "ada", **fields: Any) -> Envelope:
        agent = fields.get("agent")
        before = self.replay.holds(agent) if agent else []
        request_id = self.fresh()
        gained = [request_id] if kind == "grant" else []
        asked = {
            "version": 1,
            "deployment": "lab",
            "id": request_id,
            "agent": None,
            "module_sha256": None,
            "config_sha256": None,
            "capability": {"before": before, "after": sorted(before + gained)},
            "not_before_ms": self.now,
            "expires_ms": self.now + 600_000,
            "log_head": head_of(self.replay.size, self.replay.tree.root()),
            "proposal": None,
            "ticket": "",
            "body": {},
        } | fields
        return sign_envelope(encode_request(kind, asked), [self.humans[who]])

    def decline(self, request: Envelope, who: str, expires_ms: int | None = None) -> Envelope:
        until = self.now + 600_000 if expires_ms is None else expires_ms
        payload = encode_decline(request, deployment="lab", decline_id=self.fresh(), expires_ms=until)
        return sign_envelope(payload, [self.humans[who]])

    def approval(self, request: Envelope, who: str, expires_ms: int | None = None) -> Envelope:
        until = self.now + 600_000 if expires_ms is None else expires_ms
        payload = encode_approval(request, deployment="lab", approval_id=self.fresh(), expires_ms=until)
        return sign_envelope(payload, [self.humans[who]])

    def admit(self, request: Envelope, approvals: Iterable[Envelope], **fields: Any) -> Entry:
        listed = [one.as_value() for one in approvals]
        return self.say("controller", "admitted", request=request.as_value(), approvals=listed, **fields)

    def ask(self, kind: str, **fields: Any) -> Entry:
        """A request by ada that bob approves, admitted."""
        request = self.request(kind, **fields)
        return self.admit(request, [self.approval(request, "bob")])

    # The roster

    def next_root(self, **changes: Any) -> dict[str, Any]:
        """The next version of the trust root, with these fields changed."""
        trust = self.replay.trust
        return {**trust.body, "version": trust.version + 1, **changes}

    def person(self, name: str, *keys: PrivateKey, acts: Sequence[str] = QUORUMS) -> dict[str, Any]:
        """One human of a roster, with their keys (by default the one of their name)."""
        listed = [{"scheme": "ed25519", "public": b64encode(one.public.raw)} for one in keys or (self.humans[name],)]
        return {"name": name, "keys": listed, "acts": list(acts)}

    def holder(self, name: str) -> dict[str, Any]:
        """A holder of a sealed key, which is made here."""
        public = self.humans.setdefault(f"{name}, sealed", key(f"{name}, sealed")).public
        return {"name": name, "keys": [{"scheme": "ed25519", "public": b64encode(public.raw)}]}

    def change(self, root: Mapping[str, Any], who: str = "ada", **fields: Any) -> Envelope:
        """The request for a change of the trust root."""
        previous = fields.pop("previous_sha256", body_digest(self.replay.trust.body))
        return self.request("trust-root-change", who, body={"previous_sha256": previous, "root": root}, **fields)

    def reform(self, root: Mapping[str, Any], *approvers: str) -> Entry:
        """A change by ada, approved by others (by default bob), admitted."""
        request = self.change(root)
        return self.admit(request, [self.approval(request, one) for one in approvers or ("bob",)])

    def flag(self, who: str, since: int, *approvers: str, by: str = "ada") -> Entry:
        """A key flagged as compromised."""
        body = {"key": self.humans[who].public.keyid, "since": since}
        request = self.request("key-compromised", by, body=body)
        return self.admit(request, [self.approval(request, one) for one in approvers or ("bob",)])

    def approve_module(self, data: bytes, probe_name: str | None = None, family: str = "wasm", **changes: Any) -> str:
        self.artifacts[sha256_hex(data)] = data
        body = approval_body(data, None if probe_name is None else probe(probe_name, family)) | changes
        self.expect(self.ask("module-approval", module_sha256=sha256_hex(data), body=body))
        return sha256_hex(data)

    def approve_profile(self, value: Mapping[str, Any]) -> str:
        data = canonical(dict(value))
        self.artifacts[sha256_hex(data)] = data
        body = {"profile": "strict", "layers": []}
        self.expect(self.ask("profile-approval", config_sha256=sha256_hex(data), body=body))
        return sha256_hex(data)

    def ask_launch(self, agent: str, module: str, cage: str, **fields: Any) -> Entry:
        return self.ask("launch-request", agent=agent, module_sha256=module, config_sha256=cage, **fields)

    def ask_grant(
        self, agent: str, module: str, cage: str, tool: str = "write", calls: int = 100, **fields: Any
    ) -> Entry:
        body = {
            "tool": tool,
            "action": "scratch.write",
            "where": {"path": {"prefix": {"value": "out", "separator": "/"}}},
            "calls": calls,
            "expires_ms": self.now + DAY,
            "credential": None,
            **NO_LIMITS,
        }
        return self.ask("grant", agent=agent, module_sha256=module, config_sha256=cage, body=body, **fields)

    def revoke(self, agent: str, module: str, cage: str, grant: str) -> Entry:
        request = self.request(
            "revocation", agent=agent, module_sha256=module, config_sha256=cage, body={"grant": grant}
        )
        return self.admit(request, [])

    # What services do

    def announce(
        self,
        release: str = "release",
        surface: bytes | None = SURFACE,
        kernel: str = "",
        proof: bool = True,
        probe: bool = True,
    ) -> None:
        if surface is not None:
            self.artifacts[sha256_hex(surface)] = surface
        named = None if surface is None else sha256_hex(surface)
        for role in ROLES:
            self.expect(self.service(role, release, named, kernel_sha256=kernel or kernel_digest()))
        if self.releases:
            for role in (*ROLES, "ledger"):
                self.expect(self.measure(role, release))
            if release not in self._approved:
                self._approved.add(release)
                self.expect(self.approve_release(release))
        if proof:
            self.expect(self.say_proof())
        if probe:
            self.expect(self.probe_channel())

    def probe_channel(
        self, refuse: Callable[[Attempt], str | None] = lambda one: min(one.reasons), **drawn: Any
    ) -> Entry:
        """The monitor asks the operator channel, and the controller refuses each request for the reason `refuse` gives
        (None: not at all)."""
        drawn = {"nonce": self.fresh(), "checkpoint": self.head(), "began_ms": self.now} | drawn
        again = [body for entry in self.said if (body := once_more(entry)) is not None]
        latest = sha256_hex(again[-1]) if again else None
        for one in attempts(parse_trust_root(self.entries[0]), drawn, latest):
            reason = refuse(one)
            if reason is not None:
                self.refuse(one.digest, reason, one.verb)
        return self.say("monitor", "channel-probed", **drawn)

    def refuse(self, submission: str, reason: str, verb: str | None = None) -> Entry:
        """A refusal of the controller's."""
        return self.say("controller", "refused", submission_sha256=submission, reason=reason, detail="", verb=verb)

    def service(self, role: str, release: str = "release", surface: str | None = None, **fields: Any) -> Entry:
        """A service's word that it started; of the agent surface only the gateway speaks."""
        uid = ROLES.index(role)
        base = {
            "role": role,
            "pid": 100 + uid,
            "pid_start": 1,
            "boot_id": "b",
            "uid": 61_000 + uid,
            "gid": 61_000 + uid,
            "separation": self.separation,
            "version": "0.1.0",
            "kernel_sha256": kernel_digest(),
            "surface_sha256": surface if role == "gateway" else None,
            "release_sha256": self.package(release),
            "settings_sha256": digest_of("settings"),
            "measured": self.found(release) if self.releases else None,
            "host": {},
        }
        return self.say(role, "service-started", **(base | fields))

    def package(self, release: str = "release") -> str:
        """The digest by which a service names its release."""
        return package_of(files_of(release, SURFACE)) if self.releases else digest_of(release)

    def signed(self, release: str = "release") -> dict[str, bytes]:
        """What the release key signed of it."""
        return statements(release, self.release_key, SURFACE, **self.signs)

    def found(self, release: str = "release", **fields: Any) -> dict[str, Any]:
        """What is found of an installation that is as its manifest says."""
        files = files_of(release, SURFACE)
        manifest = sha256_hex(self.signed(release)["install"])
        base = {"manifest_sha256": manifest, "files": len(files), "root": files_root(files), "differences": []}
        return base | fields

    def measure(
        self, role: str, release: str = "release", pid: int | None = None, pid_start: int = 1, **fields: Any
    ) -> Entry:
        """The monitor's word about a service as it runs."""
        usual = 100 + (*ROLES, "ledger").index(role)
        measured = self.found(release, **fields)
        return self.say("monitor", "host-measured", role=role, pid=pid or usual, pid_start=pid_start, measured=measured)

    def approve_release(
        self,
        release: str = "release",
        *approvers: str,
        settings: str = "settings",
        **others: bytes,
    ) -> Entry:
        """A release with a configuration of the services, asked for by ada; `others` take a statement's place."""
        signed = self.signed(release) | others
        self.artifacts |= {sha256_hex(data): data for data in signed.values()}
        body = {
            "release_sha256": self.package(release),
            "settings_sha256": digest_of(settings),
            "statements": {kind: sha256_hex(data) for kind, data in signed.items()},
        }
        request = self.request("release-approval", body=body)
        return self.admit(request, [self.approval(request, one) for one in approvers or ("bob",)])

    def say_proof(self, voice: str = "monitor", **fields: Any) -> Entry:
        """The monitor's word that the solvers answered this kernel's questions."""
        digest, obligations = questions()
        rules = len(authority.RULES)
        said = {"kernel_sha256": kernel_digest(), "scripts_sha256": digest, "obligations": obligations, "rules": rules}
        return self.say(voice, "kernel-proof", **(said | {"verdicts": [verdict()]} | fields))

    def posture(self, module: str, cage: str, uid: int = 61_100) -> Any:
        namespaces = dict.fromkeys(("net", "ipc", "uts"), "private")
        namespaces |= dict.fromkeys(("user", "pid", "mnt", "cgroup"), "shared")
        facts = {
            "uid": uid,
            "gid": uid,
            "exe": digest_of("python"),
            "mappings": sorted([digest_of("python"), digest_of("libc")]),
            "namespaces": namespaces,
            "module_sha256": module,
            "config_sha256": cage,
            "filters_visible": True,
        }
        return expected_posture(json.loads(self.artifacts[cage]), facts)

    def account(self, launch: int, **fields: Any) -> dict[str, Any]:
        """What an honest node says of the sandbox of a launch, but for the fields that are given."""
        said = self.replay.books.launches[launch]
        module, cage = fields.get("module_sha256", said.module), fields.get("config_sha256", said.config)
        base = {
            "launch": launch,
            "agent": said.agent,
            "module_sha256": module,
            "config_sha256": cage,
            "runtime": "wasmtime",
            "envelope": {},
            "runtime_sha256": digest_of("wasmtime"),
            "pid": 1000 + launch,
            "pid_start": 5,
            "boot_id": "b",
            "uid": 61_100,
            "posture": None if "posture" in fields else self.posture(module, cage),
            "probes": [{"name": "socket", "verdict": "REFUSED", "refusal": "EPERM"}],
        }
        return base | fields

    def start(self, launch: int, **fields: Any) -> Entry:
        """`seen`: what the monitor says it saw, if that is something else; `unmeasured`: what the TPM did not see."""
        unmeasured, seen = fields.pop("unmeasured", {}), fields.pop("seen", {})
        said = self.account(launch, **{"quote": None} | fields)
        if "held" not in said:
            said["held"] = self.held(said | unmeasured, **seen)
        return self.say("node", "started", **(self.quoted("started", launch, said) | unmeasured))

    def held(self, said: Mapping[str, Any], signer: PrivateKey | None = None, **fields: Any) -> Any:
        """The monitor's look at the sandbox of which the node gives this account, as a start carries it."""
        base = {
            "launch": said["launch"],
            "agent": said["agent"],
            "account_sha256": account_digest(said),
            "pid": said["pid"],
            "posture": said["posture"],
            "differences": [],
        }
        payload = self.statement("held", base | fields)
        return sign_envelope(payload, [signer or self.services["monitor"]]).as_value()

    def quoted(self, kind: str, launch: int, said: dict[str, Any]) -> dict[str, Any]:
        """What the node says, with its TPM's quote if it has one and none is given."""
        if self.quoter is None or said["quote"] is not None:
            return said
        measurement = measured(kind, said)
        nonce, root = self.replay.books.launches[launch].nonce, self.replay.tree.root_at(launch + 1)
        return said | {"quote": self.quoter.quote(measurement, qualifying(nonce, root, measurement))}

    def started(self, index: int) -> Mapping[str, Any]:
        said: Mapping[str, Any] = json.loads(parse_envelope(self.entries[index]).payload)["predicate"]
        return said

    def observe(self, started: int, **fields: Any) -> Entry:
        said = self.started(started)
        base = {
            "started": started,
            "agent": said["agent"],
            "pid": said["pid"],
            "posture": said["posture"],
            "differences": [],
        }
        return self.say("monitor", "observed", **(base | fields))

    def exit(self, started: int, reason: str = "finished", report: str = "", **fields: Any) -> Entry:
        said = self.started(started)
        usage = dict.fromkeys(("messages", "fuel", "wall_ms", "cpu_ms", "max_rss"), 1)
        base = {
            "launch": said["launch"],
            "agent": said["agent"],
            "started": started,
            "reason": reason,
            "text": "",
            "report": report,
            "usage": usage,
        }
        return self.say("node", "exited", **(base | fields))

    def intent(self, agent: str, launch: int, grant: str, **fields: Any) -> Entry:
        args: Any = fields.pop("args", {"path": "out/report"})
        base = {
            "agent": agent,
            "launch": launch,
            "grant": grant,
            "tool": "write",
            "action": "scratch.write",
            "args": args,
            "args_sha256": sha256_hex(canonical(args)),
            "approval": None,
            "client": None,
        }
        return self.say("gateway", "action-intent", **(base | fields))

    def outcome(self, intent: int, status: str = "performed", spent: int | None = None) -> Entry:
        return self.say(
            "gateway",
            "action-outcome",
            intent=intent,
            status=status,
            detail="",
            result_sha256=None,
            result_bytes=0,
            spent=spent,
        )

    def drift(self, started: int | None, kind: str = "posture", pid: int = 4242, **fields: Any) -> Entry:
        base = {
            "kind": kind,
            "started": started,
            "pid": pid,
            "pid_start": 5,
            "differences": [{"path": "rlimits.nofile", "expected": [7, 7], "got": [64, 64]}],
            "detected_ms": self.now,
        }
        return self.say("monitor", "drift", **(base | fields))

    def stop_order(self, drift: int, launch: int | None, pid: int = 4242) -> Entry:
        return self.say("monitor", "stop-order", launch=launch, pid=pid, pid_start=5, drift=drift, reason="drift")

    def witness_end(self, drift: int, took_ms: int = 20, **fields: Any) -> Entry:
        base = {"drift": drift, "pid": 4242, "pid_start": 5, "by": "monitor", "took_ms": took_ms}
        return self.say("monitor", "end-witnessed", **(base | fields))

    def beat(self, sequence: int, **fields: Any) -> Entry:
        counts = dict.fromkeys(("agents", "processes", "samples", "events", "lost", "findings", "leftovers"), 0)
        base = {"sequence": sequence, "interval_ms": 10, "mode": "events", "root": b64encode(EMPTY_ROOT)}
        return self.say("monitor", "heartbeat", **(counts | base | fields))

    def head(self) -> dict[str, Any]:
        """The log's checkpoint as of now, as challenges name it."""
        return head_of(self.replay.size, self.replay.tree.root())

    def challenge(self, module: str, cage: str, name: str, **fields: Any) -> int:
        return self.expect(self.say_challenge(module, cage, name, **fields))

    def say_challenge(self, module: str, cage: str, name: str, **fields: Any) -> Entry:
        base = {
            "nonce": self.fresh(),
            "probe": name,
            "module_sha256": module,
            "config_sha256": cage,
            "environment": self.environment,
            "node": self.services["node"].public.keyid,
            "checkpoint": self.head(),
        }
        return self.say("monitor", "canary-challenge", **(base | fields))

    def result(self, answers: int, name: str, evidence: int, **fields: Any) -> Entry:
        """What the node says of a canary that came to an end."""
        asked = self.replay.books.challenges[answers]
        base = {
            "challenge": answers,
            "nonce": asked["nonce"],
            "probe": name,
            "verdict": "REFUSED",
            "refusal": "-32601 method not found",
            "evidence": evidence,
            "environment": self.environment,
            "node": self.services["node"].public.keyid,
            "checkpoint": asked["checkpoint"],
            "boot_id": "b",
            "runtime": "wasmtime",
            "runtime_sha256": digest_of("wasmtime"),
            "release_sha256": self.package(),
            "quote": None,
        }
        return self.say("node", "canary-result", **self.quoted("canary-result", answers, base | fields))

    def canary(
        self,
        module: str,
        cage: str,
        name: str,
        *,
        report: Mapping[str, Any] | None = None,
        verdict: str = "REFUSED",
        say: bool = True,
        result: Mapping[str, Any] | None = None,
        **start: Any,
    ) -> Entry | None:
        """One hostile run, observed, with its end and what the node says of it."""
        challenge = self.challenge(module, cage, name)
        nonce = self.replay.books.launches[challenge].nonce
        started = self.expect(self.start(challenge, **start))
        told = {
            "nonce": nonce,
            "probe": name,
            "verdict": "REFUSED",
            "refusal": "-32601 method not found",
            "tried": 2,
            "refused": 2,
        }
        ended = self.expect(self.exit(started, report=canonical(dict(told) | dict(report or {})).decode()))
        if not say:
            return None
        same = {field: start[field] for field in ("runtime_sha256", "boot_id") if field in start}
        return self.result(challenge, name, ended, verdict=verdict, **(same | dict(result or {})))

    # Evidence

    @property
    def pin(self) -> Pin:
        return parse_trust_root(self.entries[0]).pin

    def checkpoint(self, witnesses: Sequence[Signer] | None = None) -> bytes:
        checkpoint = Checkpoint(ORIGIN, self.replay.size, self.replay.tree.root())
        signed = sign_checkpoint(checkpoint, self.log)
        cosigners = [self.witness] if witnesses is None else witnesses
        return add_lines(signed, [cosign_checkpoint(checkpoint, one, self.now // 1000) for one in cosigners])

    def members(self) -> dict[str, bytes]:
        members = {
            "bundle.json": b"{}",
            "checkpoint": self.checkpoint(),
            "witness-policy": self.policy.encode(),
        }
        for tile in tiles_for(self.replay.size):
            if tile.level == ENTRIES:
                members[tile.path] = encode_entries(self.entries[tile.begin : tile.end])
            else:
                members[tile.path] = self.replay.tree.nodes(8 * tile.level, tile.begin, tile.end)
        return members | {f"artifacts/sha256/{digest}": data for digest, data in self.artifacts.items()}

    def bundle(self) -> bytes:
        return pack(self.members())

    def verify(self, kept: Iterable[Envelope] = (), shipped: Shipped | None = None) -> Report:
        copies = [Kept(one, digest_of("submission")) for one in kept]
        return verify_bundle(io.BytesIO(self.bundle()), self.pin, shipped=shipped, kept=copies)

    def falling(self, kept: Iterable[Envelope] = ()) -> dict[str, set[str]]:
        """Claims that do not hold, but for those that are not built yet or lack a release key, with their codes."""
        return fallen(self.verify(kept))


def fallen(report: Report) -> dict[str, set[str]]:
    codes = {
        claim.id: {reason.code for reason in claim.reasons}
        for claim in report.claims
        if claim.status != HOLDS
    }
    return {claim: said for claim, said in codes.items() if said != {"no-release"}}


def status(report: Report, claim: str) -> str:
    return next(one.status for one in report.claims if one.id == claim)


def pack(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    write_members(file, members)
    return file.getvalue()


@dataclass
class Honest:
    """A full honest history, with the names by which a test goes on from there."""

    lab: Lab
    module: str
    cage: str
    launch: int
    started: int
    grant: str
    canary: str
    probe: str = "operator-verbs"

    def act(self) -> int:
        """One legitimate action, from intent to outcome."""
        intent = self.lab.expect(self.lab.intent("clerk", self.launch, self.grant))
        self.lab.expect(self.lab.outcome(intent))
        return intent


def honest(**options: Any) -> Honest:
    """Everything that an honest deployment does: approve, launch, observe, grant, act, probe."""
    lab = Lab(**options)
    lab.announce()
    module = lab.approve_module(wasm())
    cage = lab.approve_profile(config())
    canary = lab.approve_module(wasm("canary"), "operator-verbs")
    launch = lab.expect(lab.ask_launch("clerk", module, cage))
    started = lab.expect(lab.start(launch))
    lab.expect(lab.observe(started))
    grant = lab.ask_grant("clerk", module, cage)
    lab.expect(grant)
    result = lab.canary(canary, cage, "operator-verbs")
    assert result is not None
    lab.expect(result)
    assert grant.consent is not None
    scene = Honest(lab, module, cage, launch, started, grant.consent.statement.predicate["id"], canary)
    scene.act()
    return scene
