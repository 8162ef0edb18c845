"""FedRAMP's Security Decision Record as JSON (rule SDR-CSO-FRR of the Consolidated Rules for 2026; its schema's 1.1.1).

Decides which statements the claims support; the rest of the record is the provider's to write. Source: 6-controls,
"Crosswalks".

Rule 1: nothing is rounded up, as in `documents`. `Implemented` needs every claim to hold, with a pin, in production;
`Not Implemented` a refuted one. Else no status stands, and the words *not tested*.
Rule 2: nobody's word is made up: FedRAMP's requirements are left to the provider, the assessment to the assessor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ironbound import __version__
from ironbound.verifier.claims import CLAIMS
from ironbound.verifier.verify import Report

from .controls import Plan, controls, indicators
from .documents import File, status_of, time_of

RECORD: Final = "security-decision-record.json"
_STATES: Final = {"pass": "Implemented", "fail": "Not Implemented"}


def decision_record(report: Report, plan: Plan, overview: str, files: Sequence[File], now_ms: int) -> dict[str, Any]:
    """The record. `overview`: the address of the provider's Certification Package Overview. `now_ms` is Unix time."""
    serving: dict[str, list[str]] = {}
    for claim, targets in plan.targets.items():
        for target in targets:
            serving.setdefault(target.control, []).append(claim)
    known = controls()
    return {
        "certificationPackageOverviewUri": overview,
        "metadata": {
            "version": __version__,
            "lastUpdated": time_of(now_ms),
            "updateSource": f"ironbound evidence report, from entries 0 to {report.size - 1} of {report.origin}",
        },
        "securityControls": [
            {
                "controlId": known[control].name if control in known else control,
                **_status(report, served, "controlImplementationStatus"),
                "controlImplementationDescription": "\n".join(_said(report, served)),
            }
            for control, served in sorted(serving.items())
        ],
        "fedRampRequirements": [],
        "keySecurityIndicators": [
            {
                "ksiId": name,
                **_status(report, served, "ksiImplementationStatus"),
                "ksiImplementation": [f"{title}: {CLAIMS[one][0]} (claim {one})." for one in served],
                "ksiValidation": _said(report, served),
                "ksiAssessment": ["No independent assessor has said anything here; their words replace these."],
                "ksiTests": [
                    f"`ironbound verify {files[0].name} --pin {report.pin}`: it exits with 1 if a claim is refuted, 4 "
                    "if one is unproven, and 3 if the file was changed."
                ],
                "ksiEvidence": [_evidence(report, one) for one in files],
            }
            for name, (title, served) in indicators().items()
        ],
    }


def _status(report: Report, served: Sequence[str], key: str) -> dict[str, str]:
    reason = status_of(report, served)["reason"]
    return {key: _STATES[reason]} if reason in _STATES else {}


def _said(report: Report, served: Sequence[str]) -> list[str]:
    claims = {claim.id: claim for claim in report.claims}
    lines = [str(status_of(report, served)["remarks"])]
    for one in served:
        counted = ", ".join(f"{count} {what}" for what, count in claims[one].counts.items()) or "nothing"
        lines.append(f"Claim {one} {claims[one].status}; counted: {counted}.")
    return lines


def _evidence(report: Report, file: File) -> dict[str, str]:
    return {
        "evidenceType": "Audit Record" if file.media_type == "application/zip" else "Report",
        "evidenceDescription": file.title,
        "evidenceText": f"{file.name}, SHA-256 {file.sha256}",
        "lastUpdated": time_of(report.as_of_ms)[:10],
    }
