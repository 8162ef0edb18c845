"""What humans sign when they set a quota: what is so now and what shall be, for one agent or for all together."""

from __future__ import annotations

import json
from typing import Any

from ironbound.core.request import shown_text
from verifier.lab import honest

ONE = {"calls": 1, "window_ms": 60_000}
TWO = {"calls": 2, "window_ms": 60_000}


def test_a_quota_holds_at_once_over_grants_that_are_older_than_it() -> None:
    scene = honest()
    lab = scene.lab
    assert lab.intent("clerk", scene.launch, scene.grant).void is None
    lab.expect(lab.ask("quota", agent="clerk", body={"before": None, "after": TWO}))
    calls = [lab.intent("clerk", scene.launch, scene.grant).void for _ in range(3)]
    assert calls == [None, None, "quota-exceeded"]
    lab.now += 60_000
    assert lab.intent("clerk", scene.launch, scene.grant).void is None


def test_a_quota_of_all_agents_together_names_no_agent() -> None:
    scene = honest()
    lab = scene.lab
    lab.expect(lab.ask("quota", agent=None, body={"before": None, "after": ONE}))
    calls = [lab.intent("clerk", scene.launch, scene.grant).void for _ in range(2)]
    assert calls == [None, "quota-exceeded"]
    assert lab.replay.books.quotas == {"": ONE}
    lab.expect(lab.ask("quota", agent=None, body={"before": ONE, "after": None}))
    assert lab.intent("clerk", scene.launch, scene.grant).void is None


def test_a_signer_sees_the_quota_that_is_replaced_or_the_request_is_void() -> None:
    lab = honest().lab
    seen = lab.request("quota", agent="clerk", body={"before": None, "after": ONE})
    lab.expect(lab.ask("quota", agent="clerk", body={"before": None, "after": TWO}))
    wrong = lab.ask("quota", agent="clerk", body={"before": ONE, "after": None})
    assert wrong.void == "capability-differs", "who asked saw the change, which was the last"
    assert lab.admit(seen, [lab.approval(seen, "bob")]).void == "head-stale"
    assert lab.replay.books.quotas == {"clerk": TWO}


def test_one_human_or_a_quorum_for_another_act_sets_no_quota() -> None:
    lab = honest().lab
    alone = lab.request("quota", agent=None, body={"before": None, "after": ONE})
    assert lab.admit(alone, []).void == "quorum-not-met"
    assert lab.replay.authority.read("quota_every", "") == 0


def test_a_quota_names_no_code_and_no_cage_and_has_the_subject_that_it_says() -> None:
    scene = honest()
    body: Any = {"before": None, "after": ONE}
    assert scene.lab.ask("quota", agent="clerk", module_sha256=scene.module, body=body).void == "body-malformed"
    assert scene.lab.ask("quota", agent="clerk", config_sha256=scene.cage, body=body).void == "body-malformed"
    assert scene.lab.replay.books.quotas == {}


def test_the_text_that_is_shown_spells_out_before_and_after() -> None:
    lab = honest().lab
    asked = lab.request("quota", agent="clerk", body={"before": None, "after": TWO})
    predicate = json.loads(asked.payload)["predicate"]
    text = shown_text("quota", predicate)
    assert text.startswith("request        set how many calls an agent may make\n")
    assert "\nquota before   no quota\nquota after    2 calls at once, then 2 in 1 minutes\n" in text
