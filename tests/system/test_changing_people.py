"""The roster changes under running services: each of them goes on by the new one, and so does the verifier."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from puppet import WAIT, puppet
from stand import COMMAND, Stand

from ironbound.core.keys import PrivateKey
from ironbound.core.roster import REVIEW_DUE_MS
from ironbound.evidence.export import export
from ironbound.terminal.operators import Refusal
from ironbound.verifier.verify import verify_bundle

IDLE = puppet(*[WAIT] * 8)


@pytest.fixture
def place(fresh: Callable[..., Stand]) -> Stand:
    made = fresh()
    made.start()
    made.config = made.approve_profile()
    return made


def new_key(stand: Stand, name: str) -> Path:
    """A key file by `ironbound operator new`; where its public half is."""
    folder = stand.root / "operators"
    stand.phrases[name] = f"phrase of {name}"
    reading, writing = os.pipe()
    os.write(writing, f"{stand.phrases[name]}\n".encode())
    os.close(writing)
    words = [*COMMAND, "operator", "new", name, "--keys", str(folder), "--passphrase-fd", str(reading), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, pass_fds=(reading,))
    os.close(reading)
    assert done.returncode == 0, done.stderr
    stand.keys[name] = PrivateKey.from_pem((folder / f"{name}.key").read_bytes(), stand.phrases[name].encode())
    assert json.loads(done.stdout)["keyid"] == stand.keys[name].public.keyid
    return folder / f"{name}.json"


def ran(stand: Stand, *words: str, names: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    done = stand.command(*words, names=names)
    assert done.returncode == 0, done.stderr
    return done


def claim(stand: Stand, name: str, place: Path) -> Any:
    bundle = place / f"evidence-{os.urandom(4).hex()}"
    export(stand.deployment, bundle, at_least=stand.sync())
    with open(bundle, "rb") as file:
        report = verify_bundle(file, stand.deployment.trust.pin)
    return next(one for one in report.claims if one.id == name)


def test_people_come_and_go_and_a_stolen_key_takes_what_rested_on_it(place: Stand, tmp_path: Path) -> None:
    dora = new_key(place, "dora")
    change = ("roster", "propose", "--add", f"dora={dora}", "--remove", "cy", "--quorum", "module=1")
    alone = place.command(*change, names=("ada",))
    assert alone.returncode == 1 and "quorum-not-met" in alone.stderr
    done = ran(place, *change, names=("ada", "bo"))
    assert "operator cy acts: grant launch module profile reconfigure release → -" in done.stderr
    assert "quorum module: 2 → 1" in done.stderr and "version: 1 → 2" in done.stderr
    shown = json.loads(ran(place, "roster", "--json").stdout)
    assert shown["version"] == 2 and shown["quorum"]["module"] == 1
    assert [one["name"] for one in shown["operators"]] == ["ada", "bo", "dora"]
    assert shown["operators"][2]["keys"][0]["strength"] == "sw-pass"
    assert [one["name"] for one in shown["former"]] == ["cy"]
    assert "dora" in ran(place, "roster").stdout

    digest = place.approve_module(IDLE)
    payload = place.build("launch-request", agent="clerk", module=digest, config=place.config)
    with pytest.raises(Refusal) as refused:
        place.submit(payload, "ada", "cy")
    assert refused.value.reason == "signer-removed"
    index = int(place.submit(payload, "ada", "dora")["index"])
    started = place.await_entry("started", index, launch=index)
    stolen = int(place.submit(_another(place, digest), "ada", "bo")["index"])
    other = place.await_entry("started", stolen, launch=stolen)

    keyid = place.keys["bo"].public.keyid
    done = ran(place, "roster", "flag", keyid[:12], "--since", str(stolen), names=("ada", "dora"))
    assert "signed 1 acts since then" in done.stderr
    ended = place.await_entry("exited", other.index, started=other.index)
    assert ended.predicate["reason"] == "key-compromised"
    assert not place.entries("exited", started=started.index), "what does not rest on it runs on"
    assert "COMPROMISED" in ran(place, "roster").stdout
    with pytest.raises(Refusal) as refused:
        place.submit(place.build("launch-request", agent="x", module=digest, config=place.config), "ada", "bo")
    assert refused.value.reason == "key-compromised"

    found = claim(place, "C1", tmp_path)
    assert [(one.code, one.indexes) for one in found.reasons] == [("compromised-quorum", (stolen,))]
    place.kill("controller")
    place.kill("node")  # each folds the log anew, and arrives at the same roster
    ran(place, "roster", "propose", "--remove", "bo", "--quorum", "module=2", names=("ada", "dora"))
    assert json.loads(ran(place, "roster", "--json").stdout)["version"] == 3


def _another(stand: Stand, digest: Any) -> bytes:
    return stand.build("launch-request", agent="other", module=digest, config=stand.config)


def test_the_glass_is_broken_and_reviewed(place: Stand, tmp_path: Path) -> None:
    words = []
    for name in ("ada", "eli", "fay"):
        words += ["--sealed", f"{name}={new_key(place, f'{name}.sealed')}"]
    ran(place, "roster", "propose", *words, names=("ada", "bo"))
    place.started("clerk", IDLE)
    grant = ("grant", "clerk", "scratch.list", "--json")
    sealed = ("eli.sealed", "fay.sealed")
    long = place.command(*grant, "--for", "2h", names=sealed)
    assert long.returncode == 1 and "break-glass-too-long" in long.stderr
    mixed = place.command(*grant, "--for", "30m", names=("ada", "fay.sealed"))
    assert mixed.returncode == 1 and "sealed-keys-apart" in mixed.stderr
    made = json.loads(ran(place, *grant, "--for", "30m", names=sealed).stdout)
    assert made["humans"] == ["eli", "fay"]
    assert [one.code for one in claim(place, "C1", tmp_path).reasons] == ["break-glass-review-due"]
    until = place.entries("admitted", made["index"])[0].predicate["at_ms"] + REVIEW_DUE_MS
    assert json.loads(ran(place, "status", "--json").stdout)["reviews_due"] == {made["id"]: until}
    assert f"reviews due   {made['id']} until 2" in ran(place, "status").stdout
    ran(place, "roster", "review", made["id"], "--finding", "misused", "--text", "a drill", names=("ada", "cy"))
    assert claim(place, "C1", tmp_path).status == "holds"
    assert json.loads(ran(place, "status", "--json").stdout)["reviews_due"] == {}
    listed = json.loads(ran(place, "grants", "--json").stdout)
    assert [one["state"] for one in listed if one["grant"] == made["id"]] == ["revoked"]


def test_somebody_new_signs_with_an_ssh_key(place: Stand, tmp_path: Path) -> None:
    key = tmp_path / "eve"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a phrase", "-C", "test", "-f", str(key)]
    subprocess.run(words, check=True, timeout=60)
    signer = f"eve={key}"
    place.phrases[signer] = "a phrase"
    early = place.command("approve", "canaries", names=("ada", signer))
    assert early.returncode == 1 and "is not a key of operator eve" in early.stderr
    ran(place, "roster", "propose", "--add", f"eve={key}.pub", names=("ada", "bo"))
    shown = json.loads(ran(place, "roster", "--json").stdout)["operators"][-1]
    assert (shown["name"], shown["keys"][0]["scheme"]) == ("eve", "sshsig")
    module = tmp_path / "agent.wasm"
    module.write_bytes(IDLE)
    done = ran(place, "approve", "module", str(module), "--json", names=("ada", signer))
    assert json.loads(done.stdout)["humans"] == ["ada", "eve"]


def test_a_change_that_can_not_be_is_told_before_anybody_signs(place: Stand) -> None:
    for words, said in (
        (("--remove", "zoe"), "no operator is called 'zoe'"),
        (("--quorum", "grant=4"), "trust-root-unsound"),
        (("--remove", "ada", "--remove", "bo"), "trust-root-unsound"),
        (("--drop-key", "00000000"), "0 keys begin"),
        ((), "nothing changes"),
    ):
        size = place.sync()
        done = place.command("roster", "propose", *words, names=("ada", "bo"))
        assert done.returncode != 0 and said in done.stderr, done.stderr
        sent = [one for one in place.entries(None, size) if one.kind in ("admitted", "proposed", "seconded")]
        assert not sent and "logged at" not in done.stderr, "nothing was sent"
