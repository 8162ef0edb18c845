"""Each seeded bug in kernel, consent or fold is caught by the tests of this folder: a test that can't fail is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation import Mutants, hints, killer, killers

SUITE = (
    "test_authority.py",
    "test_limits_of_grants.py",
    "test_delegation.py",
    "test_quotas.py",
    "test_request.py",
    "test_replay.py",
    "test_proposals.py",
    "test_roster.py",
    "test_snapshot.py",
    "test_release_approval.py",
)

MUTANTS: Mutants = {
    "a guard is dropped": (
        "giving",
        '    yield "module-not-approved", L.same(get(L, s, "module", m["module"]), AGENT_MODULE)\n'
        '    yield "profile-not-approved", get(L, s, "profile", m["config"])\n    yield "grant-id-used"',
        '    yield "profile-not-approved", get(L, s, "profile", m["config"])\n    yield "grant-id-used"',
    ),
    "a request lives a moment too long": (
        "rule", '"request-expired", L.less(now, m["expires"])', '"request-expired", L.at_most(now, m["expires"])',
    ),
    "a grant lives a moment too long": (
        "using", 'lambda one: L.less(now, get(L, s, "grant_expires", one))',
        'lambda one: L.at_most(now, get(L, s, "grant_expires", one))',
    ),
    "one call too many": (
        "using", '"calls-exhausted", L.forall(line, lambda one: L.less(0',
        '"calls-exhausted", L.forall(line, lambda one: L.at_most(0',
    ),
    "calls are not counted": (
        "using", 'L.plus(get(L, s, "grant_left", one), -1)', 'get(L, s, "grant_left", one)',
    ),
    "the quorum of another act": (
        "giving", '_giving(L, s, m, "grant")', '_giving(L, s, m, "launch")',
    ),
    "the quorum is read the wrong way round": (
        "giving",
        'L.at_most(get(L, s, "quorum", act), m["consents"])', 'L.at_most(1, m["consents"])',
    ),
    "a revocation that can be undone": (
        "giving",
        '    yield "grant-id-used", L.same(get(L, s, "grant_state", m["id"]), ABSENT)\n', "",
    ),
    "a revocation that does nothing": (
        "rule", '("grant_state", grant, REVOKED)', '("grant_state", grant, LIVE)',
    ),
    "a revocation that needs a live grant": (
        "giving",
        '    yield "quorum-not-met", L.at_most(1, m["consents"])\n',
        '    yield "quorum-not-met", L.at_most(1, m["consents"])\n'
        '    yield "grant-revoked", L.same(get(L, s, "grant_state", m.get("grant", "")), 1)\n',
    ),
    "replays are let in": (
        "rule", '    yield "request-replayed", L.neg(get(L, s, "used", m["id"]))\n    yield "request-too',
        '    yield "request-too',
    ),
    "a stale head will do": (
        "giving", 'L.at_most(get(L, s, "agent_changed", m["agent"]), m["head"])',
        'L.at_most(0, m["head"])',
    ),
    "a grant is not bound to its code": (
        "using", 'get(L, s, "grant_module", grant), get(L, s, "launch_module", launch)',
        'get(L, s, "grant_module", grant), get(L, s, "grant_module", grant)',
    ),
    "a grant is not bound to its cage": (
        "using", 'get(L, s, "grant_config", grant), get(L, s, "launch_config", launch)',
        'get(L, s, "launch_config", launch), get(L, s, "launch_config", launch)',
    ),
    "anybody's grant will do": (
        "using", 'L.same(get(L, s, "grant_agent", grant), m["agent"])',
        'L.same(get(L, s, "launch_agent", launch), m["agent"])',
    ),
    "canaries act": (
        "using", '    yield "canary-holds-nothing", L.neg(get(L, s, "launch_canary", launch))\n', "",
    ),
    "a canary is taken for an agent": (
        "giving", 'L.when(m["canary"], CANARY_MODULE, AGENT_MODULE)',
        'L.when(m["canary"], AGENT_MODULE, AGENT_MODULE)',
    ),
    "a stopped launch starts": (
        "giving", 'yield "launch-stopped", L.neg(get(L, s, "launch_stopped", launch))\n    yield "request-expired"',
        'yield "request-expired"',
    ),
    "an admission lasts for ever": (
        "giving",
        '    yield "request-expired", L.less(latest(L, s, m), get(L, s, "launch_expires", launch))\n', "",
    ),
    "the clock can be turned back": (
        "rule", 'return L.when(L.less(clock, m["now"]), m["now"], clock)', 'return m["now"]',
    ),
    "a refusal changes something": (
        "authority", "        reason = self.check(rule, message)\n        if reason is not None:\n            raise",
        '        reason = self.check(rule, message)\n        self._state["clock"][""] = message["now"]\n'
        "        if reason is not None:\n            raise",
    ),
    "a truthy condition will do": (
        "rule", "L.at_most(m[\"not_before\"], now)", 'L.disj(m["head_known"])',
    ),
    "a part outlives the whole": (
        "using", 'L.joined(line_of(L, s, m["grant"]), m["id"])', 'L.joined(frozenset(), m["id"])',
    ),
    "only the part is charged": (
        "using", 'Across(line_of(L, s, m["grant"])), latest', 'Across(L.joined(frozenset(), m["grant"])), latest',
    ),
    "a part may be wider than the whole": (
        "using", 'L.narrower(m["where"], get(L, s, "grant_where", grant))',
        'L.narrower(get(L, s, "grant_where", grant), m["where"])',
    ),
    "a part is handed on for ever": (
        "using", 'L.less(m["delegable"], get(', 'L.at_most(m["delegable"], get(',
    ),
    "what was not signed as delegable is handed on": (
        "using", '"grant-not-delegable", L.less(0, get(', '"grant-not-delegable", L.at_most(0, get(',
    ),
    "another agent's grant is handed on": (
        "using", 'yield "grant-of-another-agent", L.same(get(L, s, "grant_agent", grant), m["agent"])',
        'yield "grant-of-another-agent", L.disj(True)',
    ),
    "a rate has a token too many": (
        "using", 'L.plus(now, get(L, s, "grant_slack", grant))',
        'L.plus(L.plus(now, get(L, s, "grant_slack", grant)), get(L, s, "grant_every", grant))',
    ),
    "a rate fills up beyond its bucket": (
        "using", "L.when(L.less(before, now), now, before)", "before",
    ),
    "a quota of all together is not asked for": (
        "using", ', _within_quota(L, s, "", now)', "",
    ),
    "a quota is not charged": (
        "using", '        yield ("quota_full", whose, full("quota", whose))\n', "        pass\n",
    ),
    "the quota that is replaced is not shown": (
        "admission", 'if body["before"] != self.books.quotas.get(message["agent"]):', "if False:",
    ),
    "more comes back than was charged": (
        "using", 'L.at_most(0, m["spent"]), ', "",
    ),
    "a settled intent is settled again": (
        "using", '    yield ("open_grant", m["intent"], "")\n', "",
    ),
    "an approval is good for every call": (
        "using", "L.when(needed, USED, state)", "state",
    ),
    "an approval binds no arguments": (
        "using", '        L.same(get(L, s, "call_args", call), m["args_digest"]),\n', "",
    ),
    "a part needs no approval": (
        "using", '"grant_cost", "grant_approvals"):', '"grant_cost"):',
    ),
    "a name that humans gave is given again": (
        "using", "L.neg(L.disj(humans, lives(L, s, m, named)))", "L.neg(lives(L, s, m, named))",
    ),
    "a client is not asked for": (
        "using", "lambda: lives(L, s, m, client)", "lambda: True",
    ),
    "a client's grant is spent": (
        "using", 'Across(line_of(L, s, m["grant"])), latest(L, s, m)\n    cost',
        'Across(L.joined(line_of(L, s, m["grant"]), m["client"])), latest(L, s, m)\n    cost',
    ),
    "an agent stands in humans' way": (
        "giving", 'L.same(get(L, s, "grant_parent", named), "")', "L.disj(True)",
    ),
    "the gateway picks a part's id": (
        "replay", 'self._delegation(said, delegated_id(said["id"]), index', 'self._delegation(said, said["id"], index',
    ),
    "an approval shows other arguments than it binds": (
        "replay", '"args_digest": sha256_hex(canonical(said["args"])),', '"args_digest": said["args_sha256"],',
    ),
    "the quorum counts keys": (
        "request",
        "        if people is None and signatory.human in {one.human for one in signatories}:\n"
        '            raise Refused("same-human-twice")\n', "",
    ),
    "the initiator approves": (
        "request",
        '        if people is None and signatory.human == initiator.human:\n'
        '            raise Refused("initiator-approves")\n        if people is None and signatory.human in {',
        "        if people is None and signatory.human != initiator.human and signatory.human in {",
    ),
    "an approval binds the id": (
        "request", 'said["request_sha256"] != request.digest or answer.subjects != (', "answer.subjects == (",
    ),
    "an approval never expires": (
        "request", '    if said["expires_ms"] <= now_ms:\n        raise Refused("approval-expired")\n', "",
    ),
    "any known key signs": (
        "request", " = {**trust.humans, **trust.sealed}\n",
        ' = {**dict.fromkeys(trust.keys, Human("ada")), **trust.humans, **trust.sealed}\n',
    ),
    "signatures are not checked": (
        "request", "verify_envelope(Envelope(envelope.payload, (signatures[device],)), keys)[device]",
        "Signatory(known[device], device, Strength.SOFTWARE, None)",
    ),
    "another deployment's request": (
        "request",
        '    if predicate["deployment"] != trust.deployment:\n        raise Refused("other-deployment")\n', "",
    ),
    "what was shown is not checked": (
        "request", '        raise Refused("shown-differs")\n    people', "        pass\n    people",
    ),
    "a removed operator still signs": (
        "roster", "        humans=people.humans,", "        humans={**trust.humans, **people.humans},",
    ),
    "a flagged key still signs": (
        "request", '        if keyid in trust.compromised:\n            raise Refused("key-compromised")\n', "",
    ),
    "a flagged key comes back": (
        "roster", '        if keyid in trust.compromised:\n            raise Refused("key-compromised")\n', "",
    ),
    "a key changes its owner": (
        "roster", "known.get(keyid, human) != human or ", "",
    ),
    "a change comes from anywhere": (
        "roster", 'if body["deployment"] != trust.deployment:', "if False:",
    ),
    "a change replaces whatever is in force": (
        "roster", 'if asked["previous_sha256"] != body_digest(trust.body):', "if False:",
    ),
    "a change changes the services": (
        "roster", 'frozenset({"version", ', 'frozenset({"services", "version", ',
    ),
    "a change needs the quorum before it only": (
        "giving", 'L.at_most(m["quorum_reconfigure"], m["consents_after"])', 'L.at_most(1, m["consents_after"])',
    ),
    "a change needs the quorum after it only": (
        "giving", '_giving(L, s, m, "reconfigure")\n    yield "new', 'timely(L, s, m)\n    yield "new',
    ),
    "versions are skipped": (
        "giving", 'L.same(m["version"], L.plus(get(L, s, "version", ""), 1))',
        'L.less(get(L, s, "version", ""), m["version"])',
    ),
    "one human counts for each key in a change": (
        "roster", '        if human in found:\n            raise Refused("same-human-twice")\n', "",
    ),
    "anybody on the roster consents to anything": (
        "request", '        raise Refused("act-not-on-roster")\n    return', "        pass\n    return",
    ),
    "sealed keys do whatever they like": (
        "request", '            raise Refused("sealed-keys-apart")\n        act', "            pass\n        act",
    ),
    "sealed and ordinary keys add up": (
        "request", "act, known = BREAK_GLASS, trust.sealed", "act = BREAK_GLASS",
    ),
    "sealed keys grant for ever": (
        "giving", 'L.at_most(m["grant_expires"], L.plus(latest(L, s, m), MAX_BREAK_GLASS_MS))', "True",
    ),
    "a stolen key's grants stay": (
        "admission", "                if not self.stands(index):\n                    self._undo(index, message)\n",
        "                pass\n",
    ),
    "a stolen key takes everything with it": (
        "request", "index >= trust.compromised.get(key, index + 1)", "key in trust.compromised",
    ),
    "a withdrawn profile takes its second approval with it": (
        "admission", "            if any(self.stands(at) for at in same):\n                return\n", "",
    ),
    "a request is proposed again": (
        "admission", 'request.digest in self.books.proposals or self._authority.read("used", asked["id"])', "False",
    ),
    "what one human may do is proposed": (
        "admission", "        if consent.act is None:\n            raise", "        if False:\n            raise",
    ),
    "one human has any number of requests waiting": (
        "admission", '        self.require_room(request, said["at_ms"])\n', "",
    ),
    "what is over still waits": ("proposal", "return self.applied < 0 and self.declined < 0 and", "return"),
    "an applied proposal is approved on": ("admission", "if proposal.applied >= 0:", "if False:"),
    "a declined request is applied": (
        "admission", "        if proposal is not None and proposal.declined >= 0:\n", "        if False:\n",
    ),
    "a declined request is answered on": (
        "admission", '        if proposal.declined >= 0:\n            raise Refused("request-declined")\n\n', "\n",
    ),
    "an approval is taken for a decline": ("request", 'if answer.kind != "decline":', "if False:"),
    "a decline is about any request": (
        "request", "    _require_about(trust, request, answer, now_ms)\n    return signatory.human",
        "    return signatory.human",
    ),
    "sealed keys decline": (
        "request", "_one_human(trust, decline, trust.humans,",
        "_one_human(trust, decline, {**trust.humans, **trust.sealed},",
    ),
    "who was removed still approves a proposal": (
        "admission", "            except Refused:\n                continue\n            found",
        "            except Refused:\n                pass\n            found",
    ),
    "any service says anything": (
        "replay", "if kind not in VOICES[role]:", "if kind not in _HANDLERS:",
    ),
    "a word is said twice": (
        "replay", "        if used in self._ids:", '        if b"" in self._ids:',
    ),
    "the head is not checked": (
        "admission", 'and b64decode(head["root"]) == self.tree.root_at(size)', "and True",
    ),
    "a request shows powers that it does not change": (
        "admission", 'if statement.kind not in ("revocation", "stop"):  # what',
        "if statement.kind in about_agent:  # what",
    ),
    "the capability shown is not checked": (
        "admission", 'if asked["capability"] != {"before": before, "after": sorted(before + gained)}:', "if False:",
    ),
    "the monitor uses up requests' ids": (
        "replay", 'message = {"id": agent,', 'message = {"id": said["nonce"],',
    ),
    "a voice vouches for any state": (
        "replay", 'said["state_sha256"] != mark.digest', "False",
    ),
    "what is not in a snapshot is lost": (
        "snapshot", 'replace(trust, former=said["former"], compromised=said["compromised"])', "trust",
    ),
    "a snapshot forgets what was used": (
        "snapshot", '            b"".join(self._ids),\n', '            b"",\n',
    ),
    "an approval is revived by an old date": (
        "admission", 'return max(now_ms, int(self._authority.read("clock", "")))', "return now_ms",
    ),
    "what was dated ahead is acted on": (
        "replay", '"clock-ahead" if self._latest(now_ms) > now_ms + AHEAD_MS else None', "None",
    ),
    "a client that stopped is acted for": (
        "using", "L.conj(*(holds for _, holds in wanted))", "wanted[0][1]",
    ),
    "a client needs no approval": (
        "using", 'L.at_most(get(L, s, "grant_approvals", client), get(L, s, "grant_approvals", m["grant"]))', "True",
    ),
    "a host that differs starts agents": (
        "replay", 'return "host-differs" if any(one.differences for one in self.books.hosts.values()) else None',
        "return None",
    ),
    "one measured service stands for all": (
        "replay", 'if not {*self.trust.services, "ledger"} <= self.books.hosts.keys():', "if not self.books.hosts:",
    ),
    "a service that starts anew counts as measured": (
        "replay", 'self.books.hosts.pop(said["role"], None)', "pass",
    ),
    "a service that finds itself changed may serve": (
        "replay", '(measured is None or measured["differences"])', "measured is None",
    ),
    "the trust root's release key is not asked for": (
        "replay", '"" if self.trust.release is None else self.books.release', '""',
    ),
    "a release is approved with any configuration": (
        "books", "canonical([release, settings, manifest])", "canonical([release, manifest])",
    ),
    "an approval of a release survives its key": (
        "admission", 'self._authority.apply("withdraw-release", {**message, "release": act.about})', "pass",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_seeded_bug_is_caught() -> None:
    found = dict(killers(MUTANTS, SUITE, hints()))
    assert len(found) >= 80
    assert not [name for name, one in found.items() if one is None]


def test_the_same_tests_are_green_on_a_copy_without_a_bug(tmp_path: Path) -> None:
    assert killer("none", tmp_path, MUTANTS, SUITE, hints()["a guard is dropped"]) is None


def test_a_bug_whose_test_is_gone_meets_the_whole_suite(tmp_path: Path) -> None:
    found = killer("a word is said twice", tmp_path, MUTANTS, ("test_replay.py",), "test_replay.py::test_gone")
    assert found is not None and found.startswith("test_replay.py::")
