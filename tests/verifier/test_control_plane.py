"""A control plane that forges, widens, replays or withholds: each alone, each found by who verifies the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ironbound.core.canonical import b64encode, canonical
from ironbound.core.envelope import sign_envelope
from ironbound.core.request import NO_LIMITS, head_of
from ironbound.verifier.__main__ import main
from ironbound.verifier.verify import EXIT_UNPROVEN, EXIT_USAGE

from .lab import DAY, Honest, digest_of, honest


@pytest.fixture
def scene() -> Honest:
    made = honest()
    assert made.lab.falling() == {}
    return made


def asked(scene: Honest, path: str = "a", **fields: Any) -> dict[str, Any]:
    body = {
        "tool": "other", "action": "scratch.write", "where": {"path": {"equals": path}}, "calls": 1,
        "expires_ms": scene.lab.now + DAY, "credential": None, **NO_LIMITS,
    }  # fmt: skip
    return {"agent": "clerk", "module_sha256": scene.module, "config_sha256": scene.cage, "body": body} | fields


def test_a_control_plane_that_forges_a_grant_is_caught(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("grant", **asked(scene))
    forged = sign_envelope(request.payload, [lab.services["controller"]])
    assert lab.admit(forged, [lab.approval(request, "bob")]).void == "signer-unknown"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


def test_a_control_plane_that_widens_a_grant_is_caught(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("grant", **asked(scene))
    approval = lab.approval(request, "bob")
    wider = type(request)(request.payload.replace(b'{"equals":"a"}', b'{"any":true}'), request.signatures)
    assert wider.payload != request.payload
    assert lab.admit(wider, [approval]).void == "signature-invalid"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


def test_a_control_plane_that_replays_a_grant_is_caught(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("grant", **asked(scene))
    approvals = [lab.approval(request, "bob")]
    lab.expect(lab.admit(request, approvals))
    assert lab.falling() == {}
    assert lab.admit(request, approvals).void == "head-stale"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


def test_a_control_plane_that_dates_its_word_ahead_to_begin_sooner_is_caught(scene: Honest) -> None:
    lab, later = scene.lab, scene.lab.now + 600_000
    times = {"not_before_ms": later, "expires_ms": later + 60_000}
    request = lab.request("grant", **asked(scene), **times)
    approvals = [lab.approval(request, "bob", expires_ms=later + 60_000)]
    lab.expect(lab.admit(request, approvals, at_ms=later))
    assert "admitted-early" not in lab.falling().get("C1", set()), "the log alone can't know"
    scene.act()
    assert lab.falling()["C1"] == {"admitted-early"}


def test_what_was_signed_for_later_and_admitted_then_is_not_taken_for_early(scene: Honest) -> None:
    lab, later = scene.lab, scene.lab.now + 600_000
    request = lab.request("grant", **asked(scene), not_before_ms=later, expires_ms=later + 60_000)
    approvals = [lab.approval(request, "bob", expires_ms=later + 60_000)]
    lab.now = later
    lab.expect(lab.admit(request, approvals))
    scene.act()
    assert "C1" not in lab.falling()


def test_a_control_plane_that_withholds_a_revocation_while_its_agent_acts_is_caught(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request(
        "revocation", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body={"grant": scene.grant}
    )
    lab.now += 61_000
    scene.act()
    lab.expect(lab.admit(request, []))
    assert lab.falling() == {"C3": {"taken-late"}}


def test_a_control_plane_that_withholds_a_stop_while_its_agent_acts_is_caught(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("stop", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    lab.now += 61_000
    scene.act()
    lab.expect(lab.admit(request, []))
    assert "taken-late" in lab.falling()["C3"]


def test_a_revocation_that_was_signed_slowly_harms_nobody_if_nothing_was_done_meanwhile(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request(
        "revocation", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body={"grant": scene.grant}
    )
    lab.now += 61_000
    lab.expect(lab.admit(request, []))
    assert lab.falling() == {}


def test_a_control_plane_that_drops_a_revocation_is_caught_by_the_operators_own_copy(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request(
        "revocation", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage, body={"grant": scene.grant}
    )
    scene.act()
    assert lab.falling() == {}, "the log alone can't know"
    assert lab.falling(kept=[request]) == {"C1": {"request-withheld"}}
    lab.expect(lab.admit(request, []))
    assert lab.falling(kept=[request]) == {}


def test_the_command_takes_copies_and_tells_of_each_that_the_log_lacks(
    scene: Honest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = scene.lab
    bundle, copy, broken = tmp_path / "bundle", tmp_path / "copy.json", tmp_path / "broken.json"
    bundle.write_bytes(lab.bundle())
    request = lab.request("stop", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    copy.write_bytes(canonical({"request": request.as_value(), "approvals": [], "artifacts": []}) + b"\n")
    words = [str(bundle), "--pin", str(lab.pin), "--json"]
    main(words)
    assert "request-withheld" not in capsys.readouterr().out
    assert main([*words, f"--kept={copy}"]) == EXIT_UNPROVEN
    assert "request-withheld" in capsys.readouterr().out
    broken.write_text("{}")
    assert main([*words, "--kept", str(broken)]) == EXIT_USAGE
    assert main([*words, "--kept"]) == EXIT_USAGE


def test_a_copy_that_no_operator_signed_accuses_nobody(scene: Honest) -> None:
    lab = scene.lab
    request = lab.request("stop", agent="clerk", module_sha256=scene.module, config_sha256=scene.cage)
    forged = sign_envelope(request.payload, [lab.services["gateway"]])
    assert lab.falling(kept=[forged]) == {"C1": {"copy-not-signed"}}


def test_a_control_plane_that_hides_an_agent_s_changes_from_a_signer_is_caught(scene: Honest) -> None:
    """It shows the operator an older head of the log, or one of its own making."""
    lab = scene.lab
    old = lab.request("grant", **asked(scene), log_head=head_of(3, lab.replay.tree.root_at(3)))
    assert lab.admit(old, [lab.approval(old, "bob")]).void == "head-stale"
    made = lab.request("grant", **asked(scene), log_head=head_of(3, bytes(32)))
    assert lab.admit(made, [lab.approval(made, "bob")]).void == "head-unknown"
    assert lab.falling() == {"C1": {"request-not-authorised"}}


@pytest.mark.parametrize("voice", ["controller", "monitor"])
def test_a_voice_that_vouches_for_another_state_is_caught(scene: Honest, voice: str) -> None:
    lab = scene.lab
    while lab.replay.mark is None:
        lab.say("controller", "refused", submission_sha256=digest_of("s"), reason="x", detail="", verb=None)
    mark = lab.replay.mark
    honest_word = {"size": mark.size, "root": b64encode(mark.root), "state_sha256": mark.digest}
    lab.expect(lab.say(voice, "snapshot", **honest_word))
    assert lab.falling() == {}
    lab.say(voice, "snapshot", **honest_word | {"state_sha256": digest_of("more power")})
    assert lab.falling() == {"C1": {"snapshot-differs"}}
