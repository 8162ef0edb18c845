"""What the verifier says, as OSCAL 1.1.3: component definition, assessment plan and assessment results.

Decides only how claims become findings; the claims come from `ironbound.verifier`. Source: 6-controls, "OSCAL"; NIST's
OSCAL models 1.1.3, of which 1.2.2 accepts the same documents.

Rule 1: nothing is rounded up. A finding is satisfied only if every claim that serves it holds, in production and with
a pin; a refuted claim makes it `fail`, and anything else `other`, with the words *not tested*.
Rule 2: the plan rests on no result: it can be made, and is the same, before the run.
Rule 3: inner uuids follow from the deployment, the log and the name of what they name (RFC 9562, version 5). Only the
documents' and the result's are fresh in each export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid5

from ironbound import __version__
from ironbound.core.trust import PRODUCTION
from ironbound.verifier.claims import CLAIMS, HOLDS, REFUTED, Claim
from ironbound.verifier.codes import explain
from ironbound.verifier.times import utc
from ironbound.verifier.verify import Report

from .controls import Plan, Target, controls, layers

VERSION: Final = "1.1.3"
NAMESPACE: Final = "urn:ironbound:oscal"
"""Namespace of our own properties."""
CATALOG: Final = "https://doi.org/10.6028/NIST.SP.800-53r5"
SAMPLING: Final = (
    "No sample is drawn. Every entry of the log, every grant, every launch and every canary is looked at, and their "
    "numbers are stated. What was never tried is not tested."
)
SECURITY_PLAN: Final = "system-security-plan.json"
VALID_MS: Final = 30 * 86_400_000
"""How long an observation is worth relying on: a month, as continuous monitoring is submitted."""

_ROOT: Final = uuid5(UUID(int=0), NAMESPACE)
#: Layers of claims that the letter of their id does not name.
_LAYERS: Final = {"B2": "canary", "B3": "monitor", "C5": "canary", "F1": "monitor"}
_METHODS: Final = {"B2": "TEST", "C2": "TEST", "C4": "TEST", "C5": "TEST"}

Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class File:
    """A file that the documents lean on: its name beside them, media type, SHA-256 in hexadecimal, and what it is."""

    name: str
    media_type: str
    sha256: str
    title: str


def file_of(name: str, media_type: str, data: bytes, title: str) -> File:
    """A file by its bytes."""
    return File(name, media_type, sha256(data).hexdigest(), title)


def documents(
    report: Report, plan: Plan, files: tuple[File, ...], now_ms: int, fresh: Callable[[], str]
) -> dict[str, Value]:
    """The three documents, by file name. `files`: the evidence first. `fresh` makes a uuid, `now_ms` is Unix time."""
    return {
        "component-definition.json": {"component-definition": _Definition(report, plan, now_ms, fresh).value()},
        "assessment-plan.json": {"assessment-plan": _Assessment(report, plan, now_ms, fresh).value()},
        "assessment-results.json": {"assessment-results": _Results(report, plan, now_ms, fresh).value(files)},
    }


def time_of(ms: int) -> str:
    """A time as OSCAL and JSON Schema write it."""
    return utc(ms).removesuffix(" UTC").replace(" ", "T") + "Z"


def _props(**values: object) -> list[Value]:
    return [{"name": name.replace("_", "-"), "ns": NAMESPACE, "value": str(one)} for name, one in values.items()]


def layer_of(claim: str) -> str:
    """The layer whose component a claim is about."""
    return _LAYERS.get(claim, claim[0])


def method_of(claim: str) -> str:
    """TEST where the thing was tried, EXAMINE where records were read."""
    return _METHODS.get(claim, "EXAMINE")


def status_of(report: Report, served: Sequence[str]) -> Value:
    """The status of what all of these claims are evidence for (rule 1)."""
    claims = {claim.id: claim for claim in report.claims}
    refuted = [one for one in served if claims[one].status == REFUTED]
    open_ones = [one for one in served if claims[one].status not in (HOLDS, REFUTED)]
    if refuted:
        return {"state": "not-satisfied", "reason": "fail", "remarks": f"Refuted: {', '.join(refuted)}."}
    if open_ones:
        codes = "; ".join(f"{one}: {', '.join(r.code for r in claims[one].reasons)}" for one in open_ones)
        words = f"Not tested: {codes}."
    elif not report.pinned:
        words = "Not tested: no pin was given, so nothing ties this log to the deployment in question."
    elif report.environment != PRODUCTION:
        words = f"Not tested. {_elsewhere(report)}"
    else:
        return {"state": "satisfied", "reason": "pass", "remarks": f"Holds: {', '.join(served)}."}
    return {"state": "not-satisfied", "reason": "other", "remarks": words}


def _elsewhere(report: Report) -> str:
    return f"Nothing here is about production: the trust root names the environment {report.environment}."


class _Document:
    """What the three have in common."""

    title = ""

    def __init__(self, report: Report, plan: Plan, now_ms: int, fresh: Callable[[], str]) -> None:
        self.report, self.plan, self.now_ms, self.fresh = report, plan, now_ms, fresh
        self._deployment = uuid5(_ROOT, str(report.pin))
        self._log = uuid5(self._deployment, report.root.hex())

    def id(self, *names: str) -> str:
        """The uuid of something that stays from export to export of one deployment."""
        return str(uuid5(self._deployment, "/".join(names)))

    def id_here(self, *names: str) -> str:
        """The uuid of something that this very log shows."""
        return str(uuid5(self._log, "/".join(names)))

    def head(self) -> Value:
        """`uuid` and `metadata`."""
        return {
            "uuid": self.fresh(),
            "metadata": {
                "title": f"{self.title}: {self.report.deployment}",
                "last-modified": time_of(self.now_ms),
                "version": __version__,
                "oscal-version": VERSION,
                "props": _props(deployment=self.report.deployment, environment=self.report.environment),
            },
        }

    def targets(self) -> dict[Target, list[str]]:
        """Each target with the claims that serve it, in the order of their ids."""
        serving: dict[Target, list[str]] = {}
        for claim, targets in self.plan.targets.items():
            for target in targets:
                serving.setdefault(target, []).append(claim)
        return dict(sorted(serving.items(), key=_by_id))

    def reviewed(self) -> Value:
        """`reviewed-controls`: what the assessment looks at."""
        targets = self.targets()
        chosen = sorted({one.control for one in targets})
        objectives = sorted({one.id for one in targets if one.kind == "objective-id"})
        value: Value = {"control-selections": [{"include-controls": [{"control-id": one} for one in chosen]}]}
        if objectives:
            value["control-objective-selections"] = [
                {"include-objectives": [{"objective-id": one} for one in objectives]}
            ]
        return value

    def component(self, layer: str) -> str:
        """The uuid of a layer's component, the same in each document."""
        return self.id("component", layer)


def _by_id(item: tuple[Target, list[str]]) -> tuple[str, str]:
    return item[0].control, item[0].id


class _Definition(_Document):
    title = "Ironbound, by layers"

    def value(self) -> Value:
        source = self.id("resource", "catalog")
        components = []
        for layer in layers():
            requirements = [
                {
                    "uuid": self.id("requirement", layer.id, control.id),
                    "control-id": control.id,
                    "description": self._served(control.id),
                    "props": _props(core="yes" if control.core else "no"),
                }
                for control in controls().values()
                if control.layer == layer.id
            ]
            components.append(
                {
                    "uuid": self.component(layer.id),
                    "type": "software",
                    "title": layer.title,
                    "description": layer.about,
                    "control-implementations": [
                        {
                            "uuid": self.id("implementation", layer.id),
                            "source": f"#{source}",
                            "description": f"Controls that the layer {layer.title.lower()} serves. "
                            "Whether one is satisfied is the assessor's word.",
                            "implemented-requirements": requirements,
                        }
                    ],
                }
            )
        resource = {
            "uuid": source,
            "title": "NIST SP 800-53 revision 5",
            "citation": {"text": "NIST Special Publication 800-53 revision 5, security and privacy controls"},
            "rlinks": [{"href": CATALOG, "media-type": "application/oscal.catalog+json"}],
        }
        return {**self.head(), "components": components, "back-matter": {"resources": [resource]}}

    def _served(self, control: str) -> str:
        served = [claim for claim, targets in self.plan.targets.items() if any(t.control == control for t in targets)]
        if not served:
            return "No claim of this version is evidence for it."
        return "Evidence: " + "; ".join(f"{claim}, {CLAIMS[claim][0]}" for claim in served) + "."


class _Assessment(_Document):
    title = "Assessment plan"

    def value(self) -> Value:
        plan = self.id("resource", "ssp")
        ssp = {"href": self.plan.ssp or f"#{plan}"}
        components = [
            {
                "uuid": self.component(layer.id),
                "type": "software",
                "title": layer.title,
                "description": layer.about,
                "status": {"state": "operational"},
            }
            for layer in layers()
        ]
        activities = [
            {
                "uuid": self.id("activity", claim),
                "title": f"Claim {claim}",
                "description": f"The verifier decides from the whole log whether {says}.",
                "props": [{"name": "method", "value": method_of(claim)}, *_props(claim=claim)],
            }
            for claim, (says, _) in CLAIMS.items()
        ]
        value: Value = {
            **self.head(),
            "import-ssp": ssp,
            "local-definitions": {"components": components, "activities": activities},
            "reviewed-controls": self.reviewed(),
            "assessment-subjects": [
                {
                    "type": "component",
                    "description": f"Every layer. {SAMPLING}",
                    "include-subjects": [
                        {"subject-uuid": self.component(layer.id), "type": "component"} for layer in layers()
                    ],
                }
            ],
        }
        if self.plan.ssp is None:
            note = "No security plan was named; the organisation puts its own beside this file, under this name."
            links = [{"href": SECURITY_PLAN, "media-type": "application/oscal.ssp+json"}]
            resource = {"uuid": plan, "title": "Security plan", "description": note, "rlinks": links}
            value["back-matter"] = {"resources": [resource]}
        return value


class _Results(_Document):
    title = "Assessment results"

    def value(self, files: tuple[File, ...]) -> Value:
        report = self.report
        claims = {claim.id: claim for claim in report.claims}
        evidence = self.id_here("resource", files[0].name)
        result: Value = {
            "uuid": self.fresh(),
            "title": f"{report.deployment}, entries 0 to {report.size - 1}",
            "description": f"What the log of {report.deployment} shows up to its checkpoint of {report.size} entries. "
            + ("" if report.environment == PRODUCTION else f"{_elsewhere(report)} ")
            + "Satisfied says that the claims hold that serve an objective, no more.",
            "start": time_of(report.first_ms),
            "end": time_of(max(report.first_ms, report.as_of_ms)),
            "props": _props(
                pin=report.pin,
                pinned="yes" if report.pinned else "no",
                log_origin=report.origin,
                log_first=0,
                log_last=report.size - 1,
                log_root=report.root.hex(),
                entries_without_effect=report.void,
                witnesses=", ".join(report.witnesses) or "nobody",
                environment=report.environment,
                verifier_exit_code=report.exit_code,
            ),
            "reviewed-controls": self.reviewed(),
            "observations": [self._observation(claim, evidence) for claim in report.claims],
        }
        risks = [self._risk(claim) for claim in report.claims if claim.status == REFUTED]
        if risks:
            result["risks"] = risks
        result["findings"] = [self._finding(target, served, claims) for target, served in self.targets().items()]
        return {
            **self.head(),
            "import-ap": {"href": "assessment-plan.json"},
            "results": [result],
            "back-matter": {"resources": [self._resource(one) for one in files]},
        }

    def _resource(self, file: File) -> Value:
        return {
            "uuid": self.id_here("resource", file.name),
            "title": file.title,
            "rlinks": [
                {
                    "href": file.name,
                    "media-type": file.media_type,
                    "hashes": [{"algorithm": "SHA-256", "value": file.sha256}],
                }
            ],
        }

    def _observation(self, claim: Claim, evidence: str) -> Value:
        collected = self.report.as_of_ms
        value: Value = {
            "uuid": self.id_here("observation", claim.id),
            "title": f"Claim {claim.id}: {claim.status}",
            "description": f"{claim.id} {claim.status}: {claim.says}.",
            "props": _props(claim=claim.id, status=claim.status)
            + [
                {"name": "counted", "ns": NAMESPACE, "class": "population", "value": f"{count} {what}"}
                for what, count in claim.counts.items()
            ],
            "methods": [method_of(claim.id)],
            "types": ["control-objective"],
            "subjects": [{"subject-uuid": self.component(layer_of(claim.id)), "type": "component"}],
            "relevant-evidence": [
                {"href": f"#{evidence}", "description": f"Entries 0 to {self.report.size - 1} of the log, all of them."}
            ],
            "collected": time_of(collected),
            "expires": time_of(collected + VALID_MS),
        }
        said = "\n".join([*_reasons(claim), *claim.remarks])
        if said:
            value["remarks"] = said
        return value

    def _risk(self, claim: Claim) -> Value:
        return {
            "uuid": self.id_here("risk", claim.id),
            "title": f"Claim {claim.id} is refuted",
            "description": f"It is not so that {claim.says}.",
            "statement": "\n".join(_reasons(claim)),
            "status": "open",
            "related-observations": [{"observation-uuid": self.id_here("observation", claim.id)}],
        }

    def _finding(self, target: Target, served: list[str], claims: Mapping[str, Claim]) -> Value:
        status = status_of(self.report, served)
        refuted = [one for one in served if claims[one].status == REFUTED]
        value: Value = {
            "uuid": self.id_here("finding", target.id),
            "title": f"{target.id}: {status['state']}",
            "description": status["remarks"],
            "target": {"type": target.kind, "target-id": target.id, "status": status},
            "related-observations": [{"observation-uuid": self.id_here("observation", one)} for one in served],
        }
        if refuted:
            value["related-risks"] = [{"risk-uuid": self.id_here("risk", one)} for one in refuted]
        return value


def _reasons(claim: Claim) -> Iterator[str]:
    for reason in claim.reasons:
        more = f" … {reason.total} in all" if reason.total > len(reason.indexes) else ""
        where = f" Entries {', '.join(map(str, reason.indexes))}{more}." if reason.indexes else ""
        yield f"{reason.code}: {explain(reason.code)}. {reason.text}{where}"
