"""Microsoft's agent-governance-toolkit beside ours: decisions, the audit trail, and what each notices and refuses.

The toolkit runs in an environment of its own, made once from `toolkit/requirements.txt` by version and hash, by
`toolkit/ask.py`. What is said of it, and of us, is what came out of this run. Not the same work is done for a decision:
theirs matches the tool's name, ours the grant, its limits and a constraint on each argument.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "system"))

import stand as deployment
from puppet import puppet, request

from bench.kernel import _blocks, _kernel
from bench.ledger import TEXT, write
from bench.peer_logs import Row, both
from bench.verify import action_log
from ironbound.core.tile import ENTRIES, decode_entries, encode_entries, tiles_for
from ironbound.verifier.verify import BundleBroken, verify_bundle
from ironbound.wire.frames import encode_frame
from ledger_stand import Stand, append_frame, entry
from verifier.lab import honest, pack

PEER = "agent-governance-toolkit"
SHORT = "toolkit"
HERE = Path(__file__).resolve().parent / "toolkit"
MAKE_S, ASK_S = 600, 1200
VERBS = ("grant", "ironbound/grant", "approve", "launch", "tools/grant")


class NotHere(Exception):
    """This machine can't have the toolkit; the text says why."""


def _run(words: Sequence[str | Path], seconds: int) -> str:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotHere(f"{words[0]} took more than {seconds} s") from None
    if done.returncode:
        raise NotHere(f"{Path(words[0]).name}: {done.stderr.strip()[-300:]}")
    return done.stdout


def environment() -> Path:
    """The interpreter of the toolkit's environment, which is kept for the next run."""
    locked = HERE / "requirements.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ironbound"
    place = cache / f"bench-toolkit-{hashlib.sha256(locked.read_bytes()).hexdigest()[:16]}"
    python = place / "bin" / "python"
    if (place / "complete").exists():
        return python
    if shutil.which("uv") is None:
        raise NotHere("needs uv, which makes an environment from a lock file")
    shutil.rmtree(place, ignore_errors=True)
    _run(["uv", "venv", "--quiet", "--python", os.path.realpath(sys.executable), place], MAKE_S)
    _run(["uv", "pip", "install", "--quiet", "--python", python, "--require-hashes", "--only-binary", ":all:",
          "-r", locked], MAKE_S)  # fmt: skip
    (place / "complete").touch()
    return python


def _decisions(theirs: dict[str, Any], rounds: int) -> list[Row]:
    made = []
    for count, took in theirs.items():
        kernel, calls = _kernel(int(count))

        def decide(call: dict[str, Any], kernel: Any = kernel) -> None:
            if kernel.check("invoke", call) is not None:
                raise RuntimeError("a call that its grant covers was refused")

        ours = _blocks(decide, calls, rounds)
        number = f"{int(count):,}"
        made += [
            both(f"decide a call, {number} grants or rules", f"{SHORT}, policies", "µs", ours, took["policy"]),
            both(f"decide a call, {number} grants or names", f"{SHORT}, lite", "µs", ours, took["lite"]),
        ]
    return made


def _appends(theirs: dict[str, Any], count: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        stand = Stand(Path(name))
        try:
            stand.create()
            stand.start()
            stand.append(entry(1 << 60, text=TEXT))
            frames = [encode_frame(append_frame(at, entry(at + 1, text=TEXT))) for at in range(count)]
            _, latencies, _ = write(stand.socket_path, 1, frames)
        finally:
            stand.stop()
    ours = [one * 1e3 for one in latencies]
    made = []
    for name, what in (("memory", "in memory"), ("file", "file")):
        said = theirs[name]
        durable = f"{said['synced']} fsyncs for {len(said['ms']):,} entries"
        made.append(
            both(
                "append an entry, one writer; ours durable, witnessed, proved",
                f"{SHORT}, {what}",
                "ms",
                ours,
                said["ms"],
            )
            | {"theirs": durable}
        )
    return made


def _exports(theirs: dict[str, int]) -> Row:
    scene = action_log(theirs["logged"] // 2, calls=1000)
    size, report = len(scene.lab.entries), verify_bundle(io.BytesIO(scene.lab.bundle()), scene.lab.pin)
    return _check(
        "entries of an export", f"{report.size:,} of {size:,}", f"{theirs['exported']:,} of {theirs['logged']:,}"
    )


def _check(what: str, ours: str, theirs: str) -> Row:
    return {"what": what, "peer": SHORT, "ours": ours, "theirs": theirs}


def _files() -> dict[str, bool]:
    """True: the verifier takes our bundle. The checkpoint stays; whoever changes the file has no key."""
    lab = action_log(50).lab
    members = lab.members()
    tile = next(one for one in tiles_for(len(lab.entries)) if one.level == ENTRIES)
    entries = decode_entries(members[tile.path], tile.width)
    changed = {
        "untouched": entries,
        "one removed": entries[:50] + entries[51:],
        "one changed": (*entries[:50], entries[50].replace(b"a", b"b", 1), *entries[51:]),
        "last removed": entries[:-10],
    }
    said = {}
    for name, kept in changed.items():
        try:
            verify_bundle(io.BytesIO(pack(members | {tile.path: encode_entries(kept)})), lab.pin)
            said[name] = True
        except BundleBroken:
            said[name] = False
    return said


def _histories(base: Path) -> dict[str, str]:
    """What our ledger says at its start, under a witness that knows more, of an older copy and of another history."""
    stands = {name: Stand(base / name) for name in ("right", "other")}
    said = {}
    try:
        for name, stand in stands.items():
            stand.directory.mkdir()
            stand.create()
            stand.start()
            for number in range(1, 4):
                stand.append(entry(number, text=name))
        right, other = stands["right"], stands["other"]
        right.kill("ledger")
        _copy(right, base / "old")
        right.start("ledger")
        for number in range(4, 9):
            for stand in stands.values():
                stand.append(entry(number, text=stand.directory.name))
        right.kill("ledger")
        other.stop()
        _copy(right, base / "newest")
        _copy(other, base / "forged")
        for name in ("old", "forged", "newest"):
            for part in PARTS:
                shutil.rmtree(right.directory / part)
                shutil.copytree(base / name / part, right.directory / part)
            right.start("ledger", ready=False)
            said[name] = _first_word(right)
    finally:
        for stand in stands.values():
            stand.stop()
    return said


PARTS = ("ledger", "public")


def _copy(stand: Stand, to: Path) -> None:
    for part in PARTS:
        shutil.copytree(stand.directory / part, to / part)


def _first_word(stand: Stand) -> str:
    """How its ledger ended, or that it takes an entry."""
    deadline = time.monotonic() + 60
    process = stand.processes["ledger"]
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with stand.connect() as peer:
                if peer.ask(append_frame(1, entry(99))).get("ok"):
                    stand.kill("ledger")
                    return "taken"
        except (OSError, AssertionError):
            pass  # not there yet, or ending
        time.sleep(0.02)
    stand.end("ledger")
    reason = stand.log().rpartition("refused: ")[2].split(":")[0].strip()
    return f"refused: {reason}"


def _grants_itself(base: Path) -> tuple[int, int, int]:
    """An agent in its sandbox asks for power in every way that it can spell: denials, grants before and after."""
    made = deployment.Stand(deployment.folder(base, "d"))
    try:
        made.start()
        made.config = made.approve_profile()
        module = puppet(*(request(number, verb, {}) for number, verb in enumerate(VERBS, start=1)))
        before = len(made.snapshot()[0]["grant_state"])
        started = made.started("climber", module)
        made.await_entry("exited", started.index, started=started.index)
        denied = len(made.entries("action-denied", started.index, agent="climber"))
        return denied, before, len(made.snapshot()[0]["grant_state"])
    finally:
        made.stop()


def _noticed(taken: bool) -> str:
    return "not noticed" if taken else "noticed"


def _checks(theirs: dict[str, Any]) -> list[Row]:
    changed, grants = theirs["changed"], theirs["grants"]
    ours = _files()
    if not (ours["untouched"] and changed["untouched"]):
        raise RuntimeError("a trail that nobody touched is not taken, so the checks say nothing")
    with tempfile.TemporaryDirectory(prefix="ib-") as name:
        histories = _histories(Path(name))
        if histories["newest"] != "taken":
            raise RuntimeError(f"the ledger does not go on from what is right: {histories['newest']}")
        denied, before, after = _grants_itself(Path(name))
    if not (denied and not grants["before"]):
        raise RuntimeError("nothing was denied, so an agent's own grant says nothing")
    rows = [
        _check(f"the file: {what}", _noticed(ours[key]), _noticed(changed[key]))
        for key, what in (("one removed", "an entry removed"), ("one changed", "an entry changed"),
                          ("last removed", "the last ten entries removed"))
    ]  # fmt: skip
    approver = "stands in the record" if changed["approver kept"] else "not in the record"
    itself = "allowed" if grants["after"] else "denied"
    unseen = "nothing of it in the trail" if set(grants["entries"]) == {"delete"} else "in the trail"
    return [
        *rows,
        _check("the store put back to an older copy", histories["old"], _noticed(changed["last removed"])),
        _check("another history, by whoever holds the log's key", histories["forged"],
               _noticed(changed["another history"])),
        _check("who approved a call, in the signed trail", _approver(), approver),
        _check("an agent gives itself a tool", f"{denied} of {len(VERBS)} denied, grants {before} → {after}",
               f"{itself}, {unseen}"),
    ]  # fmt: skip


def _approver() -> str:
    """Whether humans stand behind a grant by its own entry, whose signatures the verifier checks."""
    scene = honest()
    entry = scene.lab.ask_grant("clerk", scene.module, scene.cage, tool="another", calls=1)
    humans = {one.human for one in entry.consent.signatories} if entry.consent is not None else set()
    return f"{len(humans)} humans' signatures in it" if humans else "not in the record"


def rows(quick: bool) -> list[Row]:
    """Rows for decisions, appends, the export and the checks; NotHere if the toolkit can't be had."""
    count, appended, rounds = (12_000, 300, 200) if quick else (100_000, 2_000, 2_000)
    with tempfile.TemporaryDirectory(prefix="ironbound-bench-") as name:
        numbers = map(str, (count, appended, rounds))
        said = json.loads(_run([environment(), "-W", "ignore", HERE / "ask.py", *numbers, name], ASK_S))
    return [
        *_decisions(said["decisions"], rounds),
        *_appends(said, appended),
        _exports(said["export"]),
        *_checks(said),
    ]
