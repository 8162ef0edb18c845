"""`ironbound demo`: the whole promise, kept by real processes, in about a minute.

Every step does what an operator, an agent, an attacker or an auditor would do, and checks that what had to happen did.
The exit code is 0 only if every step did.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import httpx

from ironbound.canary.probes import load_probes
from ironbound.core.canonical import Digest, canonical, parse_json, sha256_hex
from ironbound.core.microvm import QEMU
from ironbound.core.native import Manifest
from ironbound.core.profile import RUNTIMES, Layer, merge
from ironbound.core.replay import Entry
from ironbound.core.request import NO_LIMITS
from ironbound.core.surface import approval_body
from ironbound.core.tree import PROGRAM_MODE
from ironbound.evidence.export import export
from ironbound.node.microvm import kernel
from ironbound.node.native.container import BINARIES, SEARCH, guard_bytes
from ironbound.terminal import operators
from ironbound.terminal.canaries import challenge_all
from ironbound.terminal.commands.proving import say_proof
from ironbound.terminal.credential import bound, keep
from ironbound.terminal.releases import approval_of, read_release_folder
from ironbound.terminal.show import signed
from ironbound.terminal.up import Supervisor
from ironbound.terminal.voice import FAILED, OK, Stop, paint, say
from ironbound.wire.deployment import Deployment, is_reachable
from ironbound.wire.image_load import Piece, load
from ironbound.wire.log import Log, now_ms

from .auditor import Auditor
from .people import KeyFiles, Organisation, People
from .records import RECORDS
from .telling import StepFailed, Telling

AGENT: Final = "triage"
WAIT_S: Final = 30.0
HOUR_MS: Final = 3_600_000
#: Boundaries beside Wasm that the demo wants; where there are fewer, a virtual machine joins them, slow as it is.
BOUNDARIES: Final = 2
#: The native canaries of the demo; `ironbound canary run --all` runs every one.
SAMPLE: Final = frozenset(
    {"mount-tmpfs", "capability-raise", "setuid-root", "core-pattern", "cgroup-release-agent", "namespace-user",
     "network-metadata", "process-ptrace-parent", "call-bpf", "call-io-uring", "file-outside-tmp", "channel-operator"}
)  # fmt: skip


def demo(out: Path | None, organisation: bool = False, release: Path | None = None) -> int:
    """Run it; with `out`, leave evidence, pin and deployment there. `organisation`: with passkeys and a provider.

    `release`: the folder of the release that is installed here, which the operators then approve.
    """
    target = (out or Path(tempfile.mkdtemp(prefix="ironbound-demo-"))).resolve()
    if (target / "deployment").exists():
        raise Stop(f"{target / 'deployment'} exists", "give --out a folder that doesn't hold a demo yet")
    target.mkdir(parents=True, exist_ok=True)
    # As root the services are users of their own, who must be able to get in: a closed folder gets it at the end.
    home = target if os.getuid() != 0 or is_reachable(target) else Path(tempfile.mkdtemp(prefix="ironbound-demo-"))
    if home != target:
        home.chmod(0o755)
    # Ctrl-C, and a plain kill, end the demo through the same clean-up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    people: People = Organisation() if organisation else KeyFiles()
    try:
        return asyncio.run(Demo(target, home / "deployment", out is not None, people, release).run())
    finally:
        people.close()
        if out is not None and home != target and (home / "deployment").exists():
            shutil.copytree(home / "deployment", target / "deployment", ignore=_sockets)
        for folder in [home, target] if out is None else [home] if home != target else []:
            shutil.rmtree(folder, ignore_errors=True)


def _sockets(folder: str, names: list[str]) -> list[str]:
    """What is no file and no folder, so it can't be copied."""
    return [name for name in names if (Path(folder) / name).is_socket()]


class Demo:
    """One run in one folder."""

    def __init__(self, target: Path, root: Path, kept: bool, people: People, release: Path | None) -> None:
        self._people = people
        self._release = release
        self._target = target
        self._root = root
        self._kept = kept
        self._telling = Telling()
        self._token = os.urandom(24).hex()
        self._entries: list[Entry] = []
        self._arrived = asyncio.Event()
        self._children: list[asyncio.subprocess.Process] = []
        self._deployment: Deployment
        self._log: Log
        self._module = Digest("")
        self._config = Digest("")
        self._untested: list[str] = []
        self._proof: asyncio.Future[tuple[int, dict[str, Any]]]

    async def run(self) -> int:
        """All steps in order; the exit code."""
        separation = "each service as its own user" if os.getuid() == 0 else "as you: separation by process only"
        say(paint("Ironbound: agents that cannot raise their own privileges, proved", "bold") + f"  ({separation})")
        supervisor: Supervisor | None = None
        watching: asyncio.Future[None] | None = None
        try:
            port = await self._records_service()
            await asyncio.to_thread(self._make_deployment, port)
            supervisor = Supervisor(self._deployment, lambda role, text: self._telling.tell(f"{role} {text}"))
            await self._start(supervisor)
            watching = asyncio.ensure_future(supervisor.watch())
            await self._approve()
            await self._launch(port)
            granted = await self._grant(port)
            await self._revoke(granted["id"])
            await self._canaries()
            if self._people.beyond_wasm:
                await self._boundaries()
            await self._weaken()
            await self._export()
            auditor = Auditor(self._telling, self._target, self._release is not None)
            await auditor.verify()
            await auditor.flip()
            await auditor.rewrite(self._deployment, granted["index"])
        except (StepFailed, Stop) as error:
            cause = error.cause if isinstance(error, Stop) else str(error)
            say(paint(f"   FAILED: {cause}", "red"))
            self._explain()
            return FAILED
        finally:
            if watching is not None:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError, Stop):
                    await watching
            await self._clean(supervisor)
        say(paint(f"\nEvery step did what it had to, in {self._telling.took_s:.0f} s.", "green"))
        for text in self._untested:
            say(paint(f"NOT TESTED here: {text}", "yellow"))
        for text in self._people.unshown:
            say(paint(f"NOT SHOWN: {text}", "yellow"))
        if self._kept:
            say(f"evidence   {self._target / 'evidence.ironbound'}")
            say(f"pin        {self._target / 'pin.txt'}")
            say(f"report     {self._target / 'report.html'}, which checks itself in your browser")
        else:
            say("Nothing is left of it; `--out DIR` keeps the evidence, the pin and the deployment.")
        return OK

    # Speaking and waiting

    def _entered(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._arrived.set()

    async def _until(self, what: str, meets: Callable[[Entry], bool], start: int = 0) -> Entry:
        """The first entry from index `start` on that meets the condition."""
        deadline = time.monotonic() + WAIT_S
        while True:
            for entry in self._entries[start:]:
                if meets(entry):
                    return entry
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), max(0.01, deadline - time.monotonic()))
            except TimeoutError:
                raise StepFailed(f"{what}: it did not come in {WAIT_S:.0f} s") from None

    def _said(self, kind: str, **fields: Any) -> Callable[[Entry], bool]:
        def meets(entry: Entry) -> bool:
            same = all(entry.predicate.get(name) == value for name, value in fields.items())
            return entry.kind == kind and entry.void is None and same

        return meets

    # Operators

    async def _sign(
        self, kind: str, signers: Sequence[str], artifacts: Sequence[bytes] = (), **request: Any
    ) -> dict[str, Any]:
        """A request by the first signer, approved by the others, sent to the controller."""
        return await self._sign_all(signers, [(operators.build(self._log.replay, kind, **request), artifacts)])

    async def _sign_all(
        self, signers: Sequence[str], payloads: Sequence[tuple[bytes, Sequence[bytes]]]
    ) -> dict[str, Any]:
        """Requests signed one after the other and then sent; what became of the last."""
        submissions = await asyncio.to_thread(self._people.sign, self._deployment, payloads, signers)
        for submission in submissions:
            admitted = await asyncio.to_thread(operators.submit, self._deployment, submission)
        await self._log.caught_up(admitted["index"] + 1)
        return admitted

    async def _approve_modules(
        self, signers: Sequence[str], modules: Sequence[tuple[bytes, dict[str, Any]]]
    ) -> dict[str, Any]:
        """Each module by its bytes and the body of its approval."""
        payloads = [
            (operators.build(self._log.replay, "module-approval", module=sha256_hex(module), body=body), [module])
            for module, body in modules
        ]
        return await self._sign_all(signers, payloads)

    def _signed(self, index: int) -> str:
        """Who signed what was admitted there, and how strongly."""
        people = signed(self._log.replay.books.signed[index])
        return " and ".join(f"{human} ({strength})" for human, strength in people.items())

    async def _grant_tool(
        self, signers: Sequence[str], tool: str, action: str, where: dict[str, Any], credential: str | None = None
    ) -> dict[str, Any]:
        body = {
            "tool": tool,
            "action": action,
            "where": where,
            "calls": 100,
            "expires_ms": now_ms() + HOUR_MS,
            "credential": credential,
            **NO_LIMITS,
        }
        return await self._sign("grant", signers, agent=AGENT, module=self._module, config=self._config, body=body)

    # The steps

    async def _records_service(self) -> int:
        service = await self._child("ironbound.terminal.demo.records", feed=self._token.encode() + b"\n")
        if service.stdout is None:
            raise StepFailed("the records service has no output")
        return int(await asyncio.wait_for(service.stdout.readline(), WAIT_S))

    async def _child(self, module: str, *words: str, feed: bytes = b"") -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", "-m", module, *words, stdin=pipe, stdout=pipe, start_new_session=True
        )
        self._children.append(child)
        if feed and child.stdin is not None:
            child.stdin.write(feed)
            await child.stdin.drain()
        return child

    def _make_deployment(self, port: int) -> None:
        self._telling.step(self._people.title)
        self._deployment = self._people.found(self._root, f"demo-{os.urandom(3).hex()}", self._release)
        binding = bound(f"http://127.0.0.1:{port}", "authorization")
        keep(self._deployment, "records", binding, f"Bearer {self._token}")
        installed = [name for name, program in BINARIES.items() if shutil.which(program, path=SEARCH)]
        if len(_boundaries_of(installed)) < BOUNDARIES:
            with contextlib.suppress(kernel.KernelMissing):
                kernel.place(self._deployment.root, *kernel.installed())
        pin = f"{self._deployment.trust.pin}\n"
        (self._target / "pin.txt").write_text(pin, encoding="ascii")
        self._telling.good(f"pin for the auditor, by another road: {pin[:44]}…")

    async def _start(self, supervisor: Supervisor) -> None:
        self._telling.step("Five services, each with a key of its own")
        await supervisor.start()
        self._log = Log(self._deployment, None)
        self._log.listen(self._entered)
        await self._log.start()
        self._proof = asyncio.ensure_future(say_proof(self._deployment))
        self._telling.tell("the monitor asks the solvers about the kernel that they run")
        await self._approve_release()

    async def _approve_release(self) -> None:
        """The operators say that this release, with this configuration, may run agents; until then the node refuses."""
        key = self._deployment.trust.release
        if self._release is None or key is None:
            self._people.unshown.append("a signed release, as `./dev demo` installs one: E1 to E3 are unproven")
            return
        statements = read_release_folder(self._release, key)
        body = approval_of(self._deployment, statements, key)
        admitted = await self._sign("release-approval", ("ada", "bo"), body=body)
        measured = [one.predicate["measured"] for one in self._entries if one.kind == "service-started"]
        self._telling.good(
            f"{len(measured)} services: {measured[0]['files']:,} installed files are those that the release key signed"
        )
        who = " and ".join(admitted["humans"])
        self._telling.good(
            f"entry {admitted['index']}: release {body['release_sha256'][:12]}, so configured, approved by {who}"
        )

    async def _approve(self) -> None:
        self._telling.step("ada asks, bo approves: a profile, an agent's code, and the canaries, each by its SHA-256")
        profile = (resources.files("ironbound") / "data" / "profiles" / "strict.toml").read_bytes()
        module = (resources.files("ironbound") / "data" / "agents" / "triage.wasm").read_bytes()
        effective = merge([Layer("strict.toml", profile)])
        self._config, self._module = effective.digest, sha256_hex(module)
        done = await self._sign(
            "profile-approval",
            ("ada", "bo"),
            [effective.encoded],
            config=self._config,
            body=effective.approval_body(),
        )
        body = approval_body(module)
        try:
            await self._sign("module-approval", ("ada",), [module], module=self._module, body=body)
            raise StepFailed("ada alone approved a module")
        except operators.Refusal as refusal:
            self._telling.refused(f"ada alone: {refusal.reason}")
        payload = operators.build(self._log.replay, "module-approval", module=self._module, body=body)
        for line in await asyncio.to_thread(self._people.speak, self._deployment, payload):
            {"✓": self._telling.good, "✗": self._telling.refused}.get(line[0], self._telling.tell)(line.lstrip("✓✗ "))
        await self._sign("module-approval", ("ada", "bo"), [module], module=self._module, body=body)
        probes = load_probes("wasm")
        last = await self._approve_modules(
            ("bo", "cy"), [(one.module, approval_body(one.module, one.document)) for one in probes]
        )
        self._telling.good(f"profile {self._config[:12]}, agent {self._module[:12]}: {self._signed(done['index'])}")
        self._telling.good(f"{len(probes)} canaries: {self._signed(last['index'])}")

    async def _launch(self, port: int) -> None:
        self._telling.step("An agent is granted two tools, launched, and works: it reads, sorts and writes a report")
        base = f"http://127.0.0.1:{port}"
        task = {"records_url": f"{base}/records", "report_url": f"{base}/reports"}
        (self._deployment.root / "inputs" / f"{AGENT}.json").write_bytes(canonical(dict(task)))
        upstream: dict[str, Any] = {
            "scheme": {"equals": "http"},
            "host": {"equals": "127.0.0.1"},
            "port": {"equals": port},
        }
        read = upstream | {
            "path": {"equals": "/records"},
            "query": {"any": True},
            "method": {"equals": "GET"},
        }
        await self._grant_tool(("ada", "bo"), "records.fetch", "http.request", read, "records")
        write = {"name": {"equals": "report.md"}, "text": {"any": True}}
        await self._grant_tool(("bo", "cy"), "scratch.write", "scratch.write", write)
        start = len(self._entries)
        done = await self._sign("launch-request", ("cy", "ada"), agent=AGENT, module=self._module, config=self._config)
        self._telling.good(f"entry {done['index']}: launch by {self._signed(done['index'])}")
        began = await self._until("the launch", self._said("started", agent=AGENT), start)
        said = began.predicate
        self._telling.good(
            f"entry {began.index}: started, config consumed {said['config_sha256'][:12]}, seen by the monitor"
        )
        await self._until("the report", self._said("action-intent", tool="scratch.write"), start)
        pages = sum(1 for one in self._entries[start:] if self._said("action-intent", tool="records.fetch")(one))
        self._telling.good(
            f"{RECORDS} records in {pages} calls, the token put in at the boundary; report.md is written"
        )
        denied = await self._until("the refusal", self._said("action-denied", tool="report.post"), start)
        self._telling.refused(f"entry {denied.index}: report.post refused: {denied.predicate['reason']}")

    async def _grant(self, port: int) -> dict[str, Any]:
        self._telling.step("Two operators grant what it lacks; the agent is told, and posts its result")
        where = {
            "scheme": {"equals": "http"},
            "host": {"equals": "127.0.0.1"},
            "port": {"equals": port},
            "path": {"equals": "/reports"},
            "method": {"equals": "POST"},
            "body": {"any": True},
        }
        start = len(self._entries)
        admitted = await self._grant_tool(("ada", "cy"), "report.post", "http.request", where, "records")
        self._telling.good(f"entry {admitted['index']}: granted by {self._signed(admitted['index'])}")
        intent = await self._until("the post", self._said("action-intent", tool="report.post"), start)
        outcome = await self._until("its outcome", self._said("action-outcome", intent=intent.index), start)
        if outcome.predicate["status"] != "performed":
            raise StepFailed(f"the post: {outcome.predicate['status']}: {outcome.predicate['detail']}")
        posted = await asyncio.to_thread(self._posted, port)
        if len(posted) != 1 or posted[0].get("records") != RECORDS:
            raise StepFailed(f"the service holds {len(posted)} reports, expected one about {RECORDS} records")
        classes = ", ".join(f"{name} {count}" for name, count in _classes(posted[0]))
        self._telling.good(f"intent {intent.index} before the act, outcome {outcome.index} after it: {classes}")
        return admitted

    def _posted(self, port: int) -> Any:
        headers = {"authorization": f"Bearer {self._token}"}
        answer = httpx.get(f"http://127.0.0.1:{port}/reports", headers=headers, trust_env=False)
        return parse_json(answer.content, limit=1 << 20)

    async def _revoke(self, grant: str) -> None:
        self._telling.step("One operator revokes it, for good; the agent is asked for another round")
        start = len(self._entries)
        body = {"grant": grant}
        done = await self._sign("revocation", ("bo",), agent=AGENT, module=self._module, config=self._config, body=body)
        self._telling.good(f"entry {done['index']}: revoked by {self._signed(done['index'])}")
        path = self._deployment.root / "inputs" / f"{AGENT}.json"
        os.utime(path)
        denied = await self._until("the refusal", self._said("action-denied", tool="report.post"), start)
        self._telling.refused(f"entry {denied.index}: report.post refused: {denied.predicate['reason']}")

    async def _canaries(self) -> None:
        self._telling.step("Hostile agents, through the very same launch path, with the monitor's fresh nonce")

        def report(result: dict[str, Any], total: int) -> None:
            words = str(result["refusal"]).splitlines()[0][:84]
            line = f"{result['name']:<20} {words}"
            (self._telling.refused if result["verdict"] == "REFUSED" else self._telling.tell)(
                f"{result['verdict']} {line}"
            )

        results = await challenge_all(self._deployment, report)
        bad = [one["name"] for one in results if one["verdict"] != "REFUSED"]
        if bad or len(results) < 11:
            raise StepFailed(f"{len(results)} canaries, not refused: {', '.join(bad) or 'none'}")
        self._telling.good(f"{len(results)} of {len(results)} refused")

    async def _boundaries(self) -> None:
        """The same road in every container runtime of this machine: a native agent, and hostile ones."""
        host = next(e for e in self._entries if self._said("service-started", role="node")(e)).predicate["host"]
        here = _boundaries_of(host["runtimes"])
        self._telling.step("The same behind other boundaries, each with its own evidence")
        if here:
            native = {one.name: one for one in load_probes("native") if one.name in SAMPLE}
            program = Piece("probe", PROGRAM_MODE, chunks=(next(iter(native.values())).module,))
            rootfs = (await asyncio.to_thread(load, self._deployment, [program], guard_bytes())).digest
            manifests = {name: Manifest(rootfs, ("/probe", name)).encode() for name in native}
            bodies = [(module, approval_body(module, native[name].document)) for name, module in manifests.items()]
            await self._approve_modules(("bo", "cy"), bodies)
            visitor = Manifest(rootfs, ("/probe",)).encode()
            body = approval_body(visitor)
            await self._sign("module-approval", ("ada", "bo"), [visitor], module=sha256_hex(visitor), body=body)
            for name in here:
                await self._boundary(name, sha256_hex(visitor))
        lacking = [name for name in RUNTIMES if name not in (*here, "wasmtime")]
        for name in lacking:
            missing = "its cgroup needs root" if name in BINARIES else "it takes seconds for each launch"
            why = host["unavailable"].get(name, missing).removeprefix(f"{name}: ")
            self._untested.append(f"{name}: {why}")
        if lacking:
            self._telling.tell(paint(f"not tested here, for what the end says: {', '.join(lacking)}", "yellow"))

    async def _boundary(self, name: str, module: Digest) -> None:
        """One runtime: its profile, an agent in it, and the sample of hostile agents."""
        folder = resources.files("ironbound") / "data" / "profiles"
        effective = merge([Layer(f"{one}.toml", (folder / f"{one}.toml").read_bytes()) for one in ("native", name)])
        body = effective.approval_body()
        await self._sign("profile-approval", ("ada", "bo"), [effective.encoded], config=effective.digest, body=body)
        start = len(self._entries)
        agent = f"visitor-{name}"
        await self._sign("launch-request", ("cy", "ada"), agent=agent, module=module, config=effective.digest)
        began = await self._until(f"a start in {name}", self._said("started", agent=agent), start)
        await self._until("its end", self._said("exited", started=began.index), start)
        results = await challenge_all(self._deployment, lambda result, total: None, profile=name)
        bad = [f"{one['name']}: {one['refusal']}" for one in results if one["verdict"] != "REFUSED"]
        if bad or len(results) != len(SAMPLE):
            raise StepFailed(f"{name}: {len(results)} canaries; not refused: {'; '.join(bad) or 'none'}")
        refused = f"{len(results)} of {len(results)} hostile agents refused"
        self._telling.good(f"{name:<12} held, seen as approved (entry {began.index}), {refused}")

    async def _weaken(self) -> None:
        self._telling.step("Somebody attaches a debugger to the running sandbox, from outside")
        start = len(self._entries)
        began = next(one for one in reversed(self._entries) if self._said("started", agent=AGENT)(one))
        tamperer = await self._child("ironbound.terminal.demo.tamper", str(began.predicate["pid"]))
        if tamperer.stdout is None or await tamperer.stdout.readline() != b"attached\n":
            raise StepFailed("the kernel did not let the debugger attach, so there is no drift to see")
        attached = now_ms()
        drift = await self._until("the drift", self._said("drift", started=began.index), start)
        order = await self._until("the stop order", self._said("stop-order", drift=drift.index), start)
        ended = await self._until("the end", self._said("exited", started=began.index), start)
        paths = ", ".join(one["path"] for one in drift.predicate["differences"])
        self._telling.good(
            f"entry {drift.index}: drift ({paths}), seen {drift.predicate['detected_ms'] - attached} ms after"
        )
        took = ended.predicate["at_ms"] - drift.predicate["detected_ms"]
        self._telling.good(f"entry {order.index}: stop ordered; entry {ended.index}: the agent is dead {took} ms later")

    async def _export(self) -> None:
        self._telling.step("The evidence: one file")
        index, proof = await self._proof
        solvers = " and ".join(one["solver"] for one in proof["verdicts"])
        self._telling.good(f"entry {index}: {proof['obligations']:,} obligations about the kernel, proved by {solvers}")
        leaked = [one.index for one in self._entries if self._token.encode() in one.data]
        if leaked:
            raise StepFailed(f"the credential stands in entries {leaked}")
        out = self._target / "evidence.ironbound"
        summary = await asyncio.to_thread(export, self._deployment, out, at_least=len(self._entries))
        if summary.missing:
            raise StepFailed(f"{len(summary.missing)} artifacts are missing")
        self._telling.good(
            f"{out.name}: {summary.entries} entries, {summary.file_bytes:,} bytes; the credential is in none"
        )

    # Ending

    def _explain(self) -> None:
        """What the services said last, for whoever has to find out."""
        if not hasattr(self, "_deployment"):
            return
        for journal in sorted((self._deployment.root / "logs").glob("*.log")):
            lines = journal.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            for line in lines[-3:]:
                self._telling.tell(f"{journal.name}: {line}")
        for entry in self._entries[-5:]:
            self._telling.tell(f"entry {entry.index}: {entry.kind} {entry.void or ''}")

    async def _clean(self, supervisor: Supervisor | None) -> None:
        for child in self._children:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if hasattr(self, "_proof"):
            self._proof.cancel()
            with contextlib.suppress(asyncio.CancelledError, Stop):
                await self._proof
        if hasattr(self, "_log"):
            await self._log.close()
        if supervisor is not None:
            await supervisor.stop()


def _boundaries_of(runtimes: Collection[str]) -> list[str]:
    """Which of a host's runtimes the demo runs in, beside Wasm."""
    found = [name for name in BINARIES if name in runtimes and (os.getuid() == 0 or name == "bubblewrap")]
    return [*found, QEMU] if len(found) < BOUNDARIES and QEMU in runtimes else found


def _classes(report: dict[str, Any]) -> list[tuple[str, int]]:
    """The classes of a posted report with their counts, in its order."""
    classes = report.get("classes", {})
    return [(name, value["records"]) for name, value in classes.items()]
