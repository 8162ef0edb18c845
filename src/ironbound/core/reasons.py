"""Every reason for a refusal, as a closed list of codes: what it means, and what to do about it.

Data only. Services log the code, the terminal shows the sentence, the docs and the tests hold both
to this list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REASONS: Final[Mapping[str, str]] = {
    # the request and its signatures
    "submission-malformed": "the submission is not what the operator channel takes; send a request made by `ironbound`",
    "signature-invalid": "a signature doesn't verify under its key; sign again with the right key",
    "signer-unknown": "the signer is on no roster; only humans in the trust root can ask or approve",
    "signature-count": "a request and an approval each carry exactly one signature",
    "not-a-request": "the statement is no kind of request that an operator can sign",
    "not-an-approval": "an approval was expected; the statement is something else",
    "other-deployment": "it was signed for another deployment",
    "shown-differs": "what the signer was shown is not what this request says",
    "same-human-twice": "one human signed twice; a quorum counts humans, not keys",
    "initiator-approves": "who asks can't approve; another human has to",
    "approval-for-another-request": "the approval covers other content than this request",
    "approval-expired": "the approval has expired; approve again",
    "subject-differs": "the statement's subject is not what its body speaks of",
    "capability-differs": "the capability before or after is not what the log says; look again and sign anew",
    "body-malformed": "the request's body is malformed for its kind",
    "artifact-differs": "the bytes that the request names must come with it, and only those",
    "module-malformed": "the module is no core Wasm binary that the parser accepts",
    "module-imports": "an agent's module imports nothing; this one does",
    "profile-malformed": "the effective configuration is not one that `ironbound` makes",
    # the kernel
    "quorum-not-met": "fewer humans consent than the trust root asks for",
    "request-replayed": "this request was admitted before; ask anew",
    "request-too-early": "the request is not valid yet",
    "request-expired": "the request has expired; ask anew",
    "request-life-too-long": "a request can be valid for a day at most",
    "head-unknown": "the log head in the request is none that this log ever had",
    "head-stale": "the agent changed after the signer looked; look again and sign anew",
    "module-not-approved": "the module's digest is not approved for agents; approve it first",
    "module-already-approved": "the module's digest is approved already",
    "module-not-a-canary": "the module's digest is not approved as a canary",
    "profile-not-approved": "the effective configuration's digest is not approved; approve the profile first",
    "agent-already-running": "an agent of that id is running; stop it first",
    "launch-not-admitted": "no admitted launch waits at that index",
    "launch-not-started": "no started launch stands at that index",
    "launch-stopped": "the launch was ordered to stop",
    "agent-not-running": "the agent is not running",
    "agent-differs": "the launch belongs to another agent",
    "module-differs": "the module is not the one that was admitted",
    "config-differs": "the configuration is not the one that was admitted",
    "canary-holds-nothing": "a canary holds no grants",
    "grant-id-used": "a grant of that id exists or was revoked",
    "grant-without-calls": "a grant needs at least one call",
    "grant-expired": "the grant has expired",
    "tool-name-taken": "a live grant of that agent has this tool name",
    "too-many-grants": "the agent holds as many grants as an agent can",
    "no-such-grant": "no live grant has this name",
    "grant-of-another-agent": "the grant is another agent's",
    "grant-revoked": "the grant was revoked; revocation is final",
    "grant-for-another-module": "the grant is for other code than what runs",
    "grant-for-another-profile": "the grant is for another profile than what runs",
    "tool-differs": "the grant has another tool name",
    "action-differs": "the grant is for another action",
    "calls-exhausted": "the grant's calls are used up",
    "arguments-not-covered": "the grant's constraints don't allow these arguments",
    # entries
    "entry-malformed": "the entry is not a statement in an envelope",
    "voice-unknown": "no enrolled voice signed the entry",
    "voice-not-entitled": "that voice may not say this kind of statement",
    "said-twice": "the voice used this statement id before",
    "intent-unknown": "the outcome names no intent of its own",
    "intent-closed": "the intent has an outcome already",
    "reference-unknown": "the entry refers to one that doesn't exist or is of another kind",
}
