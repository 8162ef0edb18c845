"""What people give and take away, and what runs: one part of the kernel's table.

Rule 1: only `grant` and `break-glass` make a capability, and their guard demands the quorum of humans. `reconfigure`
        alone changes a quorum, by the quorum before and the quorum after.
Rule 2: taking away (`revoke`, `stop`, `order-stop`, `withdraw-module`, `withdraw-profile`, `withdraw-release`) has no
        precondition but one human's, or the monitor's, signature; it is never refused. A revocation is final.
Rule 3: only humans set a quota (`set-quota`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .rule import (
    ABSENT,
    ADMITTED,
    AGENT_MODULE,
    CANARY_MODULE,
    ENDED,
    FIELDS,
    MAX_BREAK_GLASS_MS,
    MAX_GRANTS_PER_AGENT,
    STARTED,
    Guard,
    Message,
    Rule,
    Write,
    changed,
    get,
    grant_named,
    latest,
    lives,
    made,
    revoked,
    tick,
    timely,
)


def _giving(L: Any, s: Any, m: Message, act: str) -> Guard:
    """What every request that gives power must meet. m: id, consents, not_before, expires, head_known, now."""
    yield "quorum-not-met", L.at_most(get(L, s, "quorum", act), m["consents"])
    yield from timely(L, s, m)


def _unchanged(L: Any, s: Any, m: Message) -> Guard:
    """The signer saw every earlier change to this agent. m: agent, head."""
    yield "head-stale", L.at_most(get(L, s, "agent_changed", m["agent"]), m["head"])


def _guard_approve_module(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "module")
    yield "module-already-approved", L.same(get(L, s, "module", m["module"]), ABSENT)


def _write_approve_module(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("module", m["module"], L.when(m["canary"], CANARY_MODULE, AGENT_MODULE))


def _guard_approve_profile(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "profile")


def _write_approve_profile(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("profile", m["config"], True)


def _guard_approve_release(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "release")


def _write_approve_release(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("release", m["release"], True)


def _active(L: Any, s: Any, launch: Any) -> Any:
    state = get(L, s, "launch_state", launch)
    return L.disj(L.same(state, ADMITTED), L.same(state, STARTED))


def _guard_launch(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "launch")
    yield from _unchanged(L, s, m)
    yield "module-not-approved", L.same(get(L, s, "module", m["module"]), AGENT_MODULE)
    yield "profile-not-approved", get(L, s, "profile", m["config"])
    yield "agent-already-running", L.neg(_active(L, s, get(L, s, "agent_launch", m["agent"])))


def _admit(L: Any, s: Any, m: Message, canary: bool) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("launch_state", m["index"], ADMITTED)
    yield ("launch_agent", m["index"], m["agent"])
    yield ("launch_module", m["index"], m["module"])
    yield ("launch_config", m["index"], m["config"])
    yield ("launch_expires", m["index"], m["expires"])
    yield ("launch_canary", m["index"], canary)
    yield ("agent_launch", m["agent"], m["index"])


def _write_launch(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield from _admit(L, s, m, False)
    yield changed(L, m)


def _guard_challenge(L: Any, s: Any, m: Message) -> Guard:
    """The monitor may run a module that the quorum approved as a canary; it can never hold a grant."""
    yield "request-replayed", L.neg(get(L, s, "used", m["id"]))
    yield "module-not-a-canary", L.same(get(L, s, "module", m["module"]), CANARY_MODULE)
    yield "profile-not-approved", get(L, s, "profile", m["config"])
    yield "agent-already-running", L.neg(_active(L, s, get(L, s, "agent_launch", m["agent"])))


def _write_challenge(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield from _admit(L, s, m, True)


def _guard_start(L: Any, s: Any, m: Message) -> Guard:
    """m: launch, agent, module, config; release: what the node runs, or "" where the trust root asks for none."""
    launch = m["launch"]
    yield "launch-not-admitted", L.same(get(L, s, "launch_state", launch), ADMITTED)
    yield "launch-stopped", L.neg(get(L, s, "launch_stopped", launch))
    yield "request-expired", L.less(latest(L, s, m), get(L, s, "launch_expires", launch))
    yield "agent-differs", L.same(get(L, s, "launch_agent", launch), m["agent"])
    yield "module-differs", L.same(get(L, s, "launch_module", launch), m["module"])
    yield "config-differs", L.same(get(L, s, "launch_config", launch), m["config"])
    yield "release-not-approved", L.disj(L.same(m["release"], ""), get(L, s, "release", m["release"]))


def _write_start(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("launch_state", m["launch"], STARTED)


def _guard_refuse_launch(L: Any, s: Any, m: Message) -> Guard:
    yield "launch-not-admitted", L.same(get(L, s, "launch_state", m["launch"]), ADMITTED)
    yield "agent-differs", L.same(get(L, s, "launch_agent", m["launch"]), m["agent"])


def _guard_exit(L: Any, s: Any, m: Message) -> Guard:
    yield "launch-not-started", L.same(get(L, s, "launch_state", m["launch"]), STARTED)
    yield "agent-differs", L.same(get(L, s, "launch_agent", m["launch"]), m["agent"])


def _write_end(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("launch_state", m["launch"], ENDED)


def _guard_grant(L: Any, s: Any, m: Message) -> Guard:
    yield from _giving(L, s, m, "grant")
    yield from _grantable(L, s, m)


def _guard_break_glass(L: Any, s: Any, m: Message) -> Guard:
    """A grant by sealed keys: they have a quorum of their own, and give nothing that lasts."""
    yield from _giving(L, s, m, "break-glass")
    yield from _grantable(L, s, m)
    yield "break-glass-too-long", L.at_most(m["grant_expires"], L.plus(latest(L, s, m), MAX_BREAK_GLASS_MS))


def _grantable(L: Any, s: Any, m: Message) -> Guard:
    """What every grant must meet, whoever signs it."""
    yield from _unchanged(L, s, m)
    yield "module-not-approved", L.same(get(L, s, "module", m["module"]), AGENT_MODULE)
    yield "profile-not-approved", get(L, s, "profile", m["config"])
    yield "grant-id-used", L.same(get(L, s, "grant_state", m["id"]), ABSENT)
    yield "grant-without-calls", L.less(0, m["calls"])
    yield "grant-expired", L.less(latest(L, s, m), m["grant_expires"])
    named = grant_named(L, s, m, m["agent"])  # a name that another agent gave away stands back
    yield (
        "tool-name-taken",
        L.neg(L.conj(lives(L, s, m, named), L.same(get(L, s, "grant_parent", named), ""))),
    )
    yield "too-many-grants", L.less(get(L, s, "agent_grants", m["agent"]), MAX_GRANTS_PER_AGENT)


def _write_grant(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield from made(L, m, m["agent"])
    yield ("grant_action", m["id"], m["action"])
    yield ("grant_every", m["id"], m["every"])
    yield ("grant_slack", m["id"], m["slack"])
    yield ("grant_cost", m["id"], m["cost"])
    yield ("grant_approvals", m["id"], m["approvals"])
    yield ("grant_line", m["id"], L.joined(FIELDS["grant_line"], m["id"]))
    yield ("agent_grants", m["agent"], L.plus(get(L, s, "agent_grants", m["agent"]), 1))
    yield changed(L, m)


def _guard_set_quota(L: Any, s: Any, m: Message) -> Guard:
    """m: agent ("" for all of them together), every, slack; both 0 for no quota."""
    yield from _giving(L, s, m, "reconfigure")
    yield from _unchanged(L, s, m)


def _write_set_quota(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("quota_every", m["agent"], m["every"])
    yield ("quota_slack", m["agent"], m["slack"])
    yield ("quota_full", m["agent"], 0)
    yield changed(L, m)


def _guard_reconfigure(L: Any, s: Any, m: Message) -> Guard:
    """The quorum before and the quorum after both consent to the next version. m: version, consents_after and the
    quorums of that version."""
    yield from _giving(L, s, m, "reconfigure")
    yield "new-quorum-not-met", L.at_most(m["quorum_reconfigure"], m["consents_after"])
    yield "trust-root-version", L.same(m["version"], L.plus(get(L, s, "version", ""), 1))


def _write_reconfigure(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    yield ("version", "", m["version"])
    yield ("quorum", "module", m["quorum_module"])
    yield ("quorum", "profile", m["quorum_profile"])
    yield ("quorum", "launch", m["quorum_launch"])
    yield ("quorum", "grant", m["quorum_grant"])
    yield ("quorum", "release", m["quorum_release"])
    yield ("quorum", "reconfigure", m["quorum_reconfigure"])
    yield ("quorum", "break-glass", m["quorum_break_glass"])


def _guard_flag(L: Any, s: Any, m: Message) -> Guard:
    """A key counts for nothing from an entry on. m: key, since."""
    yield from _giving(L, s, m, "reconfigure")
    yield "flag-in-the-future", L.at_most(m["since"], m["index"])


def _write_flag(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)
    flagged, since = get(L, s, "flagged", m["key"]), L.plus(m["since"], 1)
    earlier = L.conj(L.less(0, flagged), L.less(flagged, since))
    yield ("flagged", m["key"], L.when(earlier, flagged, since))


def _guard_review(L: Any, s: Any, m: Message) -> Guard:
    """The ordinary quorum says what it thinks of a grant by sealed keys. m: grant."""
    yield from _giving(L, s, m, "grant")
    yield "no-such-grant", L.neg(L.same(get(L, s, "grant_state", m["grant"]), ABSENT))


def _write_review(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("used", m["id"], True)


def _write_withdraw_module(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("module", m["module"], ABSENT)


def _write_withdraw_profile(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("profile", m["config"], False)


def _write_withdraw_release(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("release", m["release"], False)


def _guard_consent(L: Any, s: Any, m: Message) -> Guard:
    """Taking away: one human is enough, whatever the state."""
    yield "quorum-not-met", L.at_most(1, m["consents"])


def _write_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("launch_stopped", get(L, s, "agent_launch", m["agent"]), True)
    yield changed(L, m)


def _guard_always(L: Any, s: Any, m: Message) -> Guard:
    return iter(())


def _write_order_stop(L: Any, s: Any, m: Message) -> Iterable[Write]:
    yield tick(L, s, m)
    yield ("launch_stopped", m["launch"], True)


#: The rules of this room, as rows of the table.
GIVING: Final = (
    Rule("approve-module", "operator", _guard_approve_module, _write_approve_module),
    Rule("approve-profile", "operator", _guard_approve_profile, _write_approve_profile),
    Rule("approve-release", "operator", _guard_approve_release, _write_approve_release),
    Rule("launch", "operator", _guard_launch, _write_launch),
    Rule("grant", "operator", _guard_grant, _write_grant),
    Rule("break-glass", "operator", _guard_break_glass, _write_grant),
    Rule("set-quota", "operator", _guard_set_quota, _write_set_quota),
    Rule("reconfigure", "operator", _guard_reconfigure, _write_reconfigure),
    Rule("flag-key", "operator", _guard_flag, _write_flag),
    Rule("review", "operator", _guard_review, _write_review),
    Rule("revoke", "operator", _guard_consent, revoked),
    Rule("stop", "operator", _guard_consent, _write_stop),
    Rule("withdraw-module", "operator", _guard_consent, _write_withdraw_module),
    Rule("withdraw-profile", "operator", _guard_consent, _write_withdraw_profile),
    Rule("withdraw-release", "operator", _guard_consent, _write_withdraw_release),
    Rule("challenge", "monitor", _guard_challenge, _write_challenge),
    Rule("order-stop", "monitor", _guard_always, _write_order_stop),
    Rule("start", "node", _guard_start, _write_start),
    Rule("refuse-launch", "node", _guard_refuse_launch, _write_end),
    Rule("exit", "node", _guard_exit, _write_end),
)
