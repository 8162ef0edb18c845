"""What the specification speaks of: the kernel's fields, messages and marks, each with its sort. Data only.

Rule 1: a *mark* (ghost variable) is driven by what was validly signed, by what was asked and by the kernel's yes or
        no, which everybody sees; never by what the kernel wrote down for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .terms import NUMBER, SET, TRUTH, Field

Message = Mapping[str, Any]
Write = tuple[str, Any, Any]

#: The sorts of the kernel's fields. A field that is missing here can't be proved about, and a test says so.
SORTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "quorum": (("Act",), NUMBER),
    "version": ((), NUMBER),
    "flagged": (("Key",), NUMBER),
    "clock": ((), NUMBER),
    "used": (("Id",), TRUTH),
    "module": (("Module",), NUMBER),
    "profile": (("Config",), TRUTH),
    "release": (("Release",), TRUTH),
    "launch_state": ((NUMBER,), NUMBER),
    "launch_agent": ((NUMBER,), "Agent"),
    "launch_module": ((NUMBER,), "Module"),
    "launch_config": ((NUMBER,), "Config"),
    "launch_expires": ((NUMBER,), NUMBER),
    "launch_canary": ((NUMBER,), TRUTH),
    "launch_stopped": ((NUMBER,), TRUTH),
    "agent_launch": (("Agent",), NUMBER),
    "agent_changed": (("Agent",), NUMBER),
    "agent_grants": (("Agent",), NUMBER),
    "grant_state": (("Id",), NUMBER),
    "grant_agent": (("Id",), "Agent"),
    "grant_module": (("Id",), "Module"),
    "grant_config": (("Id",), "Config"),
    "grant_tool": (("Id",), "Tool"),
    "grant_action": (("Id",), "Action"),
    "grant_where": (("Id",), "Where"),
    "grant_left": (("Id",), NUMBER),
    "grant_expires": (("Id",), NUMBER),
    "tool_grant": (("Agent", "Tool"), "Id"),
    "agent_delegated": (("Agent",), NUMBER),
    "grant_every": (("Id",), NUMBER),
    "grant_slack": (("Id",), NUMBER),
    "grant_full": (("Id",), NUMBER),
    "grant_budget": (("Id",), NUMBER),
    "grant_cost": (("Id",), NUMBER),
    "grant_approvals": (("Id",), NUMBER),
    "grant_delegable": (("Id",), NUMBER),
    "grant_parent": (("Id",), "Id"),
    "grant_line": (("Id",), SET),
    "call_state": (("Id",), NUMBER),
    "call_agent": (("Id",), "Agent"),
    "call_grant": (("Id",), "Id"),
    "call_tool": (("Id",), "Tool"),
    "call_args": (("Id",), "Digest"),
    "call_expires": (("Id",), NUMBER),
    "quota_every": (("Agent",), NUMBER),
    "quota_slack": (("Agent",), NUMBER),
    "quota_full": (("Agent",), NUMBER),
    "open_grant": ((NUMBER,), "Id"),
    "open_cost": ((NUMBER,), NUMBER),
}
#: What the first trust root fixes before the first message.
GIVEN: Final = frozenset({"quorum"})

#: The sorts of a message's fields.
MESSAGE: Final[Mapping[str, str]] = {
    "index": NUMBER, "now": NUMBER, "id": "Id", "consents": NUMBER, "not_before": NUMBER, "expires": NUMBER,
    "head": NUMBER, "head_known": TRUTH, "agent": "Agent", "module": "Module", "config": "Config", "canary": TRUTH,
    "tool": "Tool", "action": "Action", "where": "Where", "calls": NUMBER, "grant_expires": NUMBER, "grant": "Id",
    "launch": NUMBER, "args": "Args", "every": NUMBER, "slack": NUMBER, "cost": NUMBER, "approvals": NUMBER,
    "budget": NUMBER, "delegable": NUMBER, "args_digest": "Digest", "approval": "Id", "client": "Id",
    "client_args": "Args", "intent": NUMBER, "spent": NUMBER, "child": NUMBER, "to": "Agent",
    "version": NUMBER, "consents_after": NUMBER, "quorum_module": NUMBER, "quorum_profile": NUMBER,
    "quorum_launch": NUMBER, "quorum_grant": NUMBER, "quorum_release": NUMBER, "quorum_reconfigure": NUMBER,
    "quorum_break_glass": NUMBER,
    "key": "Key", "since": NUMBER, "release": "Release",
}  # fmt: skip

#: What a grant says, in the order in which it is marked.
CONTENT: Final = ("Agent", "Module", "Config", "Tool", "Action", "Where")

#: The marks: sorts of the key, sort of the value, and what nothing was marked with.
MARKS: Final[Mapping[str, Field]] = {
    "said_module": Field(("Module", TRUTH), TRUTH, False),  # (digest, as a canary): its quorum signed it
    "said_profile": Field(("Config",), TRUTH, False),
    "said_release": Field(("Release",), TRUTH, False),
    "said_launch": Field((NUMBER, "Agent", "Module", "Config", NUMBER), TRUTH, False),  # by index; until when
    # calls, until when; ms between calls, slack, cost of a call, humans for each call, budget
    "said_grant": Field(("Id", *CONTENT, *(NUMBER,) * 7), TRUTH, False),
    "said_call": Field(("Id", "Agent", "Id", "Tool", "Digest", NUMBER), TRUTH, False),  # by enough humans; until when
    "burned": Field(("Id",), TRUTH, False),  # the approval let a call through
    "withdrawn": Field(("Module",), TRUTH, False),  # some human took its approval back, and nobody gave it again
    "shut": Field(("Config",), TRUTH, False),
    "barred": Field(("Release",), TRUTH, False),
    "busy": Field(("Id",), NUMBER, 0),  # when the rate's bucket is full again, of this grant and its parts
    "above": Field(("Id",), SET, frozenset()),  # the grants that this one was handed on from, itself included
    "root": Field(("Id",), "Id", ""),  # the humans' grant that it is a part of
    "charged": Field(("Id",), NUMBER, 0),  # budget spent under this grant and its parts
    "owing": Field((NUMBER,), "Id", ""),  # intent -> the grant that paid for it, until it is settled
    "owed": Field((NUMBER,), NUMBER, 0),
    # the quota of an agent, or of all together (no name), as the latest request says that took effect, and its bucket
    "pace": Field(("Agent",), NUMBER, 0),
    "lead": Field(("Agent",), NUMBER, 0),
    "next": Field(("Agent",), NUMBER, 0),
    "taken": Field(("Id",), TRUTH, False),  # some human signed its revocation, and it was delivered
    "stopped_at": Field(("Agent",), NUMBER, 0),  # entries before the latest delivered stop of this agent
    "ordered": Field((NUMBER,), TRUTH, False),  # the monitor ordered this launch to stop
    "happened": Field(("Id",), TRUTH, False),  # a giving request of this id took effect
    "owner": Field(("Id",), "Agent", ""),  # whom the grant of this id was admitted for
    "given": Field(("Id",), TRUTH, False),
    "spent": Field(("Id",), NUMBER, 0),  # calls let through under this grant and its parts
    "moved": Field(("Agent",), NUMBER, 0),  # log size just after the latest change to this agent that took effect
    "time": Field((), NUMBER, 0),  # the latest time of what took effect
    "began": Field((NUMBER,), TRUTH, False),  # the node said that this launch runs
    "over": Field((NUMBER,), TRUTH, False),  # the node said that this launch ended
    "hostile": Field((NUMBER,), TRUTH, False),  # the monitor's challenge: a canary
    "edition": Field((), NUMBER, 1),  # the version of the trust root that took effect last
    "length": Field((), NUMBER, 0),  # entries so far, as far as messages tell
}

#: The requests that give power, with the act whose quorum they take.
GIVING: Final[Mapping[str, str]] = {
    "approve-module": "module", "approve-profile": "profile", "approve-release": "release", "launch": "launch",
    "grant": "grant", "break-glass": "break-glass", "set-quota": "reconfigure", "reconfigure": "reconfigure",
    "flag-key": "reconfigure", "review": "grant",
}  # fmt: skip
#: The requests that take power away: one human's, or the monitor's, is always heard.
TAKING: Final = ("revoke", "stop", "order-stop", "withdraw-module", "withdraw-profile", "withdraw-release")
#: The requests that make a grant.
GRANTS: Final = ("grant", "break-glass")
#: The acts that have a quorum, and the longest life of a grant by sealed keys.
ACTS: Final = ("module", "profile", "launch", "grant", "release", "reconfigure", "break-glass")
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
#: The spec's own spelling of the kernel's states.
ABSENT, ADMITTED, STARTED, ENDED = 0, 1, 2, 3
AGENT, CANARY, LIVE, REVOKED = 1, 2, 1, 2
#: The rules whose message carries the index of its entry.
NUMBERED: Final = (
    "approve-module", "approve-profile", "approve-release", "launch", "grant", "set-quota", "revoke", "stop",
    "challenge", "invoke", "drop", "break-glass", "reconfigure", "flag-key", "review", "withdraw-module",
    "withdraw-profile", "withdraw-release",
)  # fmt: skip

#: The sorts of the values that invariants and steps are about.
VALUES: Final[Mapping[str, str]] = {
    "act": "Act", "agent": "Agent", "module": "Module", "config": "Config", "grant": "Id", "id": "Id", "launch": NUMBER,
    "other": "Id", "args": "Args", "key": "Key", "release": "Release",
}  # fmt: skip
