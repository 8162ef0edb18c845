"""`--propose` and `ironbound requests`: one operator asks, another approves elsewhere, and all see what waits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from puppet import WAIT, puppet
from stand import Stand, folder
from test_changing_people import new_key

from ironbound.core.canonical import b64encode, canonical
from ironbound.core.envelope import envelope_from_value, sign_envelope
from ironbound.core.request import encode_approval
from ironbound.terminal.init import free_ports


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A running deployment whose operator channel listens with TLS too."""
    place = Stand(folder(tmp_path_factory.mktemp("r"), "d"), listen=f"127.0.0.1:{free_ports(1)[0]}")
    try:
        place.start()
        place.config = place.approve_profile()
        yield place
    finally:
        place.stop()


@pytest.fixture
def machine(made: Stand, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Another machine: two public files, the certificate, bo's key; no log, no socket."""
    there = tmp_path / "there"
    there.mkdir()
    for name in ("deployment.json", "trust-root.json", "operator-channel.crt"):
        shutil.copy(made.root / name, there / name)
    (there / "operators").mkdir()
    for key in (made.root / "operators").iterdir():
        if key.name.split(".")[0] in ("bo", "dora"):
            shutil.copy(key, there / "operators" / key.name)
    assert made.deployment.listen is not None
    address = f"127.0.0.1:{made.deployment.listen[1]}"

    def run(*words: str, names: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        way = ("--to", address, "--certificate", str(there / "operator-channel.crt"), "-d", str(there))
        return made.command(*words, *way, names=names, where=False)

    return run


def test_a_module_waits_until_the_second_operator_saw_and_approved_it(
    made: Stand, machine: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    module = tmp_path / "agent.wasm"
    module.write_bytes(puppet(WAIT, WAIT, WAIT, b"waits\n"))
    done = made.command("approve", "module", str(module), "--propose", "--ticket", "T-7", names=("ada",))
    assert done.returncode == 0, done.stderr
    identity = re.search(r"request ([0-9a-f]{32}) proposed: entry \d+, waiting, 1 of 2 humans", done.stdout)
    assert identity, done.stdout
    shown = made.command("requests")
    assert identity[1][:12] in shown.stdout and "1 of 2" in shown.stdout and "ada" in shown.stdout
    for where in (machine, made.command):
        seen = where("requests", "show", identity[1][:8])
        assert seen.returncode == 0 and "T-7" in seen.stderr and "waiting: asked by ada" in seen.stdout, seen.stderr
    own = made.command("requests", "approve", identity[1], names=("ada",))
    assert own.returncode == 1 and "initiator-approves" in own.stderr
    done = machine("requests", "approve", identity[1], names=("bo",))
    assert done.returncode == 0 and "T-7" in done.stderr, done.stderr
    assert re.fullmatch(r"applied: entry \d+ \(ada, bo\)\n", done.stdout), done.stdout
    assert identity[1][:12] not in made.command("requests").stdout
    over = json.loads(made.command("requests", "--all", "--json").stdout)
    assert [(one["state"], one["approvers"]) for one in over if one["id"] == identity[1]] == [("applied", ["bo"])]
    again = machine("requests", "approve", identity[1], names=("bo",))
    assert again.returncode == 1 and "applied already" in again.stderr


def test_one_operator_declines_and_it_can_not_be_applied(
    made: Stand, machine: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    module = tmp_path / "agent.wasm"
    module.write_bytes(puppet(WAIT, b"declined\n"))
    done = made.command("approve", "module", str(module), "--propose", "--json", names=("ada",))
    identity = json.loads(done.stdout)["id"]
    before = made.snapshot()
    done = machine("requests", "decline", identity[:8], names=("bo",))
    assert done.returncode == 0 and "decline, for good, to approve a module" in done.stderr, done.stderr
    assert re.fullmatch(r"declined by bo: entry \d+; it can't be applied any more\n", done.stdout), done.stdout
    assert identity[:12] not in made.command("requests").stdout
    over = made.command("requests", "--all").stdout
    assert re.search(rf"{identity[:12]}.*declined \(by bo\)", over), over
    for verb in ("approve", "decline"):
        again = made.command("requests", verb, identity, names=("cy",))
        assert again.returncode == 1 and "the request is declined (by bo) already" in again.stderr
    value = made.post(b"", "GET", "/proposals").json()["proposals"][0]
    request = made.post(b"", "GET", f"/proposals/{value['request_sha256']}").json()["request"]
    answer = encode_approval(
        envelope_from_value(request),
        deployment=made.deployment.trust.deployment,
        approval_id="ab" * 16,
        expires_ms=value["expires_ms"],
    )
    approval = sign_envelope(answer, [made.keys["cy"]]).as_value()
    for path, body in (
        (f"/proposals/{value['request_sha256']}/approvals", {"approval": approval}),
        (f"/proposals/{value['request_sha256']}/declines", {"decline": approval}),
        ("/requests", {"request": request, "approvals": [approval], "artifacts": [b64encode(module.read_bytes())]}),
    ):
        said = made.post(canonical(body), path=path)
        assert (said.status_code, said.json()["reason"]) == (403, "request-declined"), said.text
    assert made.post(b"{}", path=f"/proposals/{'a' * 64}/declines").json()["reason"] == "proposal-unknown"
    assert made.snapshot() == before, "nothing was given"


def test_a_change_of_the_roster_is_approved_elsewhere_before_and_after_shown(
    made: Stand, machine: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    dora = new_key(made, "dora")
    words = ("roster", "propose", "--add", f"dora={dora}", "--propose", "--valid", "2h", "--json")
    done = made.command(*words, names=("cy",))
    assert done.returncode == 0, done.stderr
    identity = json.loads(done.stdout)["id"]
    done = machine("requests", "approve", identity, names=("bo",))
    assert done.returncode == 0, done.stderr
    assert "version: 1 → 2" in done.stderr and re.search("operator dora key [0-9a-f]{64}: - → ed25519", done.stderr)
    assert "dora" in made.command("roster").stdout
    shown = machine("requests", "--json")
    assert json.loads(shown.stdout) == []


def test_what_is_wrong_is_told_with_a_hint(made: Stand) -> None:
    for words, said in (
        (("requests", "show", "0123abcd"), "0 proposed requests begin with"),
        (("requests", "approve", "0123abcd"), "one operator approves at a time"),
        (("requests", "--to", "127.0.0.1:1"), "--to and --certificate go together"),
    ):
        done = made.command(*words)
        assert done.returncode != 0 and said in done.stderr and "hint" in done.stderr, done.stderr
    done = made.command("approve", "canaries", "--propose", names=("ada", "bo"))
    assert done.returncode == 2 and "one operator proposes" in done.stderr
