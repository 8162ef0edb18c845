"""Every reason code of the verifier, as closed lists: what it means, in a sentence.

Data only. `INTEGRITY` codes break the whole bundle (exit 3), `REFUTING` codes refute the claim they stand
under, `OPEN` codes leave it unproven. Docs and tests hold themselves to these lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INTEGRITY: Final[Mapping[str, str]] = {
    "zip-structure": "the file is not a ZIP file in the one spelling that a bundle has",
    "member-name": "a member has a name that no bundle has",
    "member-missing": "a member that the evidence rests on is missing",
    "member-damaged": "a member's bytes are not those that its checksum stands for",
    "too-large": "the bundle or a member is larger than its named limit",
    "index-malformed": "bundle.json is not JSON",
    "artifact-differs": "an artifact's bytes are not those that its name stands for",
    "policy-malformed": "the witness policy is malformed",
    "policy-differs": "the witness policy is not the one in the trust root",
    "checkpoint-malformed": "the checkpoint is malformed",
    "checkpoint-signature": "a signature on the checkpoint is missing, unknown or wrong",
    "checkpoint-unwitnessed": "the witnesses that cosigned the checkpoint are no quorum",
    "log-empty": "the log has no entries, so it has no trust root",
    "trust-root-invalid": "entry 0 is not a sound trust root",
    "pin-differs": "the log is not the one that the pin names",
    "tile-missing": "the bundle lacks a tile or an entry bundle of the log, so there is a gap",
    "tile-unexpected": "the bundle holds a tile that a log of the checkpoint's size does not have",
    "tile-malformed": "an entry bundle is malformed",
    "tile-differs": "a tile is not what the entries hash to",
    "root-differs": "the entries do not hash to the root that the checkpoint states",
}

REFUTING: Final[Mapping[str, str]] = {
    "start-void": "the node started something that no admitted launch allows",
    "module-unapproved": "a module ran that the quorum had not approved before",
    "surface-differs": "a module's surface is not the one that was approved with it",
    "module-imports": "a module that ran imports something, so it can reach out of its sandbox",
    "module-exports": "a module that ran does not export what the sandbox calls",
    "module-memory": "a module that ran demands more memory than its profile allows",
    "consumed-config-differs": "the sandbox consumed another configuration than was approved",
    "profile-unapproved": "a launch used a configuration that the quorum had not approved before",
    "artifact-not-a-config": "the approved configuration's bytes are no effective configuration",
    "posture-not-expected": "the node's own posture is not what the configuration demands",
    "observed-config-differs": "the monitor saw another configuration than the one consumed",
    "observed-posture-differs": "the monitor saw another posture than the node reported",
    "canary-escaped": "a hostile agent got out",
    "self-probe-escaped": "a sandbox's own probe got out before the agent ran, and the node went on",
    "verdict-differs": "the node reported another verdict than its own evidence gives",
    "canary-result-void": "the node reported a canary's result that answers no challenge of the monitor",
    "canary-result-differs": "a canary's result names another boot, runtime or release than its own launch had",
    "canary-replayed": "a canary's result was said before: its challenge, nonce or checkpoint is that of another",
    "canary-foreign": "a canary's result names another node than the enrolled one",
    "canary-test-environment": "a canary's result names another environment than the one that the trust root enrols",
    "quote-invalid": "a quote is not the enrolled TPM's, or is about another launch, nonce or register",
    "drift-not-stopped": "a sandbox drifted and no stop order followed",
    "drift-stop-late": "a sandbox drifted and did not end within the trust root's bound",
    "difference-unheeded": "the monitor saw a posture that differs and raised no drift",
    "request-not-authorised": "the controller admitted a request that the humans' signatures don't carry",
    "compromised-quorum": "an act rests on a key that was compromised by then; without it the quorum was not met",
    "break-glass-unreviewed": "no quorum reviewed a grant by sealed keys within 72 hours",
    "snapshot-differs": "a voice vouched for a state of power that does not follow from the log's entries",
    "agent-surface-route": "a gateway's agent surface names something that nobody has judged harmless",
    "agent-surface-malformed": "what a gateway named as its agent surface is none",
    "agent-surface-differs": "a gateway named another agent surface than the one that its release ships",
    "acted-without-intent": "an action took effect without an accepted intent under a live grant",
    "exit-without-start": "an end was reported for something that had not started",
    "voice-not-entitled": "a voice said what it may not say",
    "voice-unknown": "an entry was signed by nobody on the trust root",
    "signature-invalid": "an entry's signature does not verify",
    "entry-malformed": "an entry is no statement in an envelope",
    "other-deployment": "an entry speaks of another deployment",
    "said-twice": "a voice used one statement id for two entries",
    "start-unseen": "the node said a start without the monitor's word that it saw that very sandbox held",
    "observation-differs": "the monitor's observation names another process than the node's launch",
    "observation-void": "the monitor observed a launch that never was",
    "process-unmatched": "a process without an entry, or an entry without a process, was not ordered to stop",
    "users-not-separate": "services or sandboxes shared a user, or ran as another than the trust root says",
}

OPEN: Final[Mapping[str, str]] = {
    "not-built": "this version of Ironbound gathers no evidence for it yet",
    "no-pin": "no pin was given, so nothing ties this log to the deployment in question",
    "empty-population": "there was nothing to check: a period without activity is unverified, not passed",
    "artifact-missing": "the bundle lacks an artifact that the claim rests on",
    "surface-unreadable": "a module's surface could not be read",
    "posture-not-visible": "the monitor could not see all of a posture",
    "canary-missing": "a canary was never run with this configuration",
    "canary-window-uncovered": "a configuration was in use in a window in which no refusal of a canary counts",
    "canary-missed": "the node answered a challenge of the monitor with no result",
    "canary-late": "the node answered a challenge of the monitor too late for the result to count",
    "canary-inconclusive": "a canary's probe ended without a verdict",
    "canary-other-runtime": "a canary ran on another build of the runtime than the agents did",
    "canary-other-release": "a canary ran under another release of Ironbound than the agents did",
    "canary-other-boot": "a canary ran in another boot of the host than the agents did",
    "canary-void": "the monitor's challenge had no effect",
    "quote-missing": "the trust root enrols a TPM, and the node said this without its quote",
    "quote-gap": "the TPM's register was extended by something that this log does not show",
    "self-probe-inconclusive": "a sandbox's own probe ended without a verdict",
    "request-withheld": "a request that an operator signed is not in the log: it was never sent, or it was withheld",
    "copy-not-signed": "a copy of a request carries no valid signature of an operator",
    "taken-late": "an action took effect long after a human had signed that its power be taken away",
    "no-canaries": "the quorum approved no canary",
    "no-observation": "the monitor observed nothing in this log",
    "heartbeat-missed": "the monitor was silent for longer than the trust root allows while a launch ran",
    "drift-stop-pending": "a drift's time to stop was still running when the log ends",
    "end-unwitnessed": "a drifted process that belongs to no launch was ordered to stop; nobody witnessed its end",
    "break-glass-review-due": "a grant by sealed keys awaits its review, and the 72 hours for it are not over",
    "channel-not-probed": "no canary showed in this window that the agent channel refuses every operator verb",
    "surface-not-announced": "a gateway did not say which surface it shows to agents",
    "release-differs": "a gateway ran another release than the one that was given",
    "outcome-missing": "an intent has no outcome yet",
    "outcome-unknown": "what became of an intent without authority is unknown",
    "launch-unanswered": "an admitted launch was neither started nor refused before it expired",
    "service-not-announced": "a service never announced itself, so its user is unknown",
}


def explain(code: str) -> str | None:
    """The sentence of a reason code, or None if there is no such code."""
    return INTEGRITY.get(code) or REFUTING.get(code) or OPEN.get(code)
