"""C5 holds only while the controller was seen to refuse, often enough, everything that it has to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ironbound.core.authority import RULES
from ironbound.core.canonical import sha256_hex
from ironbound.core.logic import Plain
from ironbound.core.malformed import GRACE_MS, Attempt, attempts, every_ms, once_more
from ironbound.core.replay import Entry
from ironbound.core.rule import FIELDS
from ironbound.core.trust import parse_trust_root
from ironbound.verifier.claims import REFUTED, UNPROVEN

from .lab import DAY, Honest, Lab, digest_of, honest, status

HOUR = 3_600_000


def right(one: Attempt) -> str:
    return min(one.reasons)


def later(lab: Lab, ms: int) -> None:
    """Time passes, and something is said then."""
    lab.now += ms
    lab.refuse(digest_of(f"noise {lab.now}"), "submission-malformed")


def quiet() -> Honest:
    """An honest history in which nothing runs any more, so that only C5 asks for anything as time passes."""
    scene = honest()
    scene.lab.expect(scene.lab.exit(scene.started))
    return scene


def test_every_request_of_an_asking_is_counted_as_sent_and_as_refused() -> None:
    scene = honest()
    scene.lab.expect(scene.lab.probe_channel())
    claim = next(one for one in scene.lab.verify().claims if one.id == "C5")
    assert (claim.status, claim.reasons) == ("holds", ())
    assert claim.counts["requests sent"] == claim.counts["requests refused"] == 14 + 15, "the first had no repeat"


def names() -> list[str]:
    lab = Lab()
    drawn = {"nonce": lab.fresh(), "checkpoint": lab.head(), "began_ms": lab.now}
    latest = sha256_hex(b"the latest")
    return [one.name for one in attempts(parse_trust_root(lab.entries[0]), drawn, latest)]


@pytest.mark.parametrize("name", names())
def test_a_refusal_that_is_missing_or_gives_another_reason_leaves_it_unproven(name: str) -> None:
    scene = honest()
    scene.lab.expect(scene.lab.probe_channel(lambda one: None if one.name == name else right(one)))
    assert scene.lab.falling() == {"C5": {"channel-answer-missing"}}
    other = honest()
    reason = "submission-malformed" if " /" in name else "route-unknown"
    other.lab.expect(other.lab.probe_channel(lambda one: reason if one.name == name else right(one)))
    assert other.lab.falling() == {"C5": {"channel-answer-differs"}}


@pytest.mark.parametrize("way", ["admitted", "proposed", "later"])
@pytest.mark.parametrize("refused_too", [True, False])
def test_a_controller_that_puts_what_it_should_refuse_into_the_log_refutes_it(way: str, refused_too: bool) -> None:
    """Without effect, since the kernel looks for itself: but the controller did not."""
    scene = honest()
    sent: list[Any] = []

    def put() -> Entry:
        envelope = {"request": sent[0]["request"]}
        if way == "proposed":
            return scene.lab.say("controller", "proposed", **envelope)
        return scene.lab.say("controller", "admitted", **envelope, approvals=[])

    def refuse(one: Attempt) -> str | None:
        if one.name == "signed by a stranger":
            sent.append(json.loads(one.body or b""))
            if way != "later":
                assert put().void == "signer-unknown"
            return right(one) if refused_too else None
        return right(one)

    scene.lab.expect(scene.lab.probe_channel(refuse))
    if way == "later":
        assert put().void == "signer-unknown"
    report = scene.lab.verify()
    assert status(report, "C5") == REFUTED and scene.lab.falling()["C5"] == {"channel-admitted"}


def test_what_took_power_away_is_not_asked_for_once_more() -> None:
    """The kernel would let it through again, and stop an agent that runs by now."""
    scene = honest()
    before = [one for one in scene.lab.said if one.kind == "admitted"][-1]
    scene.lab.expect(scene.lab.revoke("clerk", scene.module, scene.cage, scene.grant))
    sent: list[Attempt] = []

    def refuse(one: Attempt) -> str:
        sent.append(one)
        return right(one)

    scene.lab.expect(scene.lab.probe_channel(refuse))
    again = next(one for one in sent if one.body is None)
    assert again.digest == sha256_hex(once_more(before) or b"")
    assert "C5" not in scene.lab.falling()


@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.voice == "operator"])
def test_whatever_gives_power_is_let_through_once(rule: str) -> None:
    """So nothing comes of asking for it once more, and only for that it is done."""
    state = {field: {} for field in FIELDS} | {"used": {"i": True}}
    guards = dict(RULES[rule].guard(Plain, state, Anything()))
    takes = rule in ("revoke", "stop") or rule.startswith("withdraw-")
    assert ("request-replayed" in guards) != takes
    assert takes or guards["request-replayed"] is not True


class Anything(dict[str, object]):
    """A message with a number in every field but the id."""

    def __missing__(self, name: str) -> object:
        return "i" if name == "id" else 0


def test_a_controller_that_was_never_asked_or_only_after_a_while_leaves_it_unproven() -> None:
    lab = Lab()
    lab.announce(probe=False)
    assert lab.falling()["C5"] == {"empty-population"} and status(lab.verify(), "C5") == UNPROVEN
    later(lab, 2 * GRACE_MS)
    assert lab.falling()["C5"] == {"channel-not-asked"}
    lab.expect(lab.probe_channel())
    assert lab.falling()["C5"] == {"channel-not-asked"}


@pytest.mark.parametrize(
    ("steps", "falls"),
    [
        ((DAY - HOUR,), False),
        ((DAY - HOUR, 0), False),
        ((DAY + HOUR, GRACE_MS + 1), True),
        ((DAY + HOUR, -1), False),  # a deployment that was down, and was asked as soon as it was up
        ((DAY + HOUR, HOUR, -1), True),
        ((DAY // 2, -1, DAY - HOUR, -1, DAY - HOUR), False),
        ((DAY // 2, -1, DAY - HOUR, DAY // 2, HOUR, -1), True),
    ],
)
def test_nothing_is_said_for_longer_than_the_interval_without_an_asking(steps: tuple[int, ...], falls: bool) -> None:
    """A step of -1 is an asking, any other one time that passes before something is said."""
    lab = quiet().lab
    for step in steps:
        if step < 0:
            lab.expect(lab.probe_channel())
        else:
            later(lab, step)
    assert lab.falling().get("C5") == ({"channel-not-asked"} if falls else None)


@pytest.mark.parametrize("ways", [(), (right,), (lambda one: None,)])
def test_another_release_is_asked_for_itself(ways: tuple[Callable[[Attempt], str | None], ...]) -> None:
    lab = quiet().lab
    lab.announce(release="the next", probe=False)
    for way in ways:
        lab.expect(lab.probe_channel(way))
    later(lab, 2 * GRACE_MS)
    expected = {(): {"channel-not-asked"}, (right,): None}
    assert lab.falling().get("C5") == expected.get(ways, {"channel-answer-missing", "channel-not-asked"})


def test_refusals_before_the_checkpoint_or_after_the_word_are_no_answers() -> None:
    """A controller can't answer what it did not get, and one that reads the word in the log comes too late."""
    scene = honest()
    drawn = {"nonce": scene.lab.fresh(), "began_ms": scene.lab.now}
    early = scene.lab.head()
    scene.lab.expect(scene.lab.probe_channel(lambda one: None, **drawn, checkpoint=early))
    again = scene.lab.probe_channel(**drawn, checkpoint=early)  # refused now, and said once more
    scene.lab.expect(again)
    assert scene.lab.falling()["C5"] == {"channel-answer-missing"}
    assert next(one for one in scene.lab.verify().claims if one.id == "C5").reasons[0].total == 15


@pytest.mark.parametrize("role", ["controller", "node", "gateway"])
def test_nobody_but_the_monitor_says_what_was_sent(role: str) -> None:
    lab = Lab()
    lab.announce(probe=False)
    said = lab.say(role, "channel-probed", nonce=lab.fresh(), checkpoint=lab.head(), began_ms=lab.now)
    assert said.void == "voice-not-entitled"
    assert lab.falling()["C5"] == {"empty-population"}


def test_an_asking_names_a_checkpoint_of_this_log_of_a_moment_ago() -> None:
    lab = Lab()
    lab.announce(probe=False)
    head = lab.head()
    assert lab.probe_channel(checkpoint=head | {"root": "AAAA" * 10 + "AAA="}).void == "checkpoint-unknown"
    lab.now += 2 * 60_000
    lab.refuse(digest_of("noise"), "x")
    lab.now += 2 * 60_000
    assert lab.probe_channel(checkpoint=head).void == "checkpoint-stale"


def test_a_short_interval_of_canaries_does_not_flood_the_channel() -> None:
    assert (every_ms(1_000), every_ms(DAY)) == (60_000, DAY)
