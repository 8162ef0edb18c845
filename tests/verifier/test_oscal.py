"""What the verifier says as OSCAL: valid by NIST's own schemas, rounded up nowhere, and safe in a spreadsheet."""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from trestle.core.validator_factory import validator_factory
from trestle.oscal.assessment_plan import AssessmentPlan
from trestle.oscal.assessment_results import AssessmentResults
from trestle.oscal.component import ComponentDefinition

from ironbound.evidence.oscal.controls import MapRefused, control_id, controls, organisations_plan, own_plan
from ironbound.evidence.oscal.matrix import cell
from ironbound.evidence.oscal.write import oscal_files
from ironbound.terminal.main import main
from ironbound.verifier.claims import CLAIMS, HOLDS, REFUTED
from ironbound.verifier.verify import Report

from .lab import Honest, honest

BUNDLE = "evidence.ironbound"
NOW = 1_790_000_000_000
DOCUMENTS = ("component-definition", "assessment-plan", "assessment-results")


def files_of(report: Report, plan: Any = None, start: int = 1) -> dict[str, bytes]:
    count = itertools.count(start)
    return oscal_files(
        report, plan or own_plan(), BUNDLE, "a" * 64, NOW, lambda: str(uuid.UUID(int=next(count), version=4))
    )


def results_of(report: Report, plan: Any = None) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(files_of(report, plan)["assessment-results.json"])["assessment-results"]
    return value


def findings_of(report: Report) -> dict[str, dict[str, Any]]:
    found = results_of(report)["results"][0]["findings"]
    return {one["target"]["target-id"]: one for one in found}


@pytest.fixture(scope="module")
def scene() -> Honest:
    return honest()


@pytest.fixture(scope="module")
def report(scene: Honest) -> Report:
    return scene.lab.verify()


def refuted() -> Report:
    scene = honest()
    scene.lab.outcome(1)
    return scene.lab.verify()


#: Properties and values that OSCAL's own namespace has, of those that we write.
OSCALS_OWN = {"method": {"INTERVIEW", "EXAMINE", "TEST"}}
METHODS = {"EXAMINE", "INTERVIEW", "TEST", "UNKNOWN"}
NAMED = {"subject-uuid": "components", "observation-uuid": "observations", "risk-uuid": "risks"}


def every(value: Any, key: str) -> Iterator[Any]:
    """What stands under this key, anywhere; of lists each item."""
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == key:
            yield from one if isinstance(one, list) else [one]
        yield from every(one, key)


def broken(documents: dict[str, Any]) -> list[str]:
    """What NIST's metaschema asks beyond the schemas, of all that our documents have; `bench/oscal.py` asks it all."""
    found: list[str] = []
    for name, value in documents.items():
        resources = {one["uuid"] for one in every(value, "resources")}
        uuids = list(every(value, "uuid"))
        found += [f"{name}: uuid twice" for _ in range(len(uuids) - len(set(uuids)))]
        found += [f"{name}: no rlink" for one in every(value, "resources") if not one.get("rlinks")]
        found += [
            f"{name}: no resource {one}" for one in every(value, "href") if one[:1] == "#" and one[1:] not in resources
        ]
        found += [f"{name}: a part without method" for part in every(value, "parts") if part["name"] != "objective"]
        found += [
            f"{name}: property {one['name']}"
            for one in every(value, "props")
            if "ns" not in one and one["value"] not in OSCALS_OWN.get(one["name"], ())
        ]
        found += [f"{name}: method {one}" for one in every(value, "methods") if one not in METHODS]
        found += [
            f"{name}: a digest of another length"
            for one in every(value, "hashes")
            if one["algorithm"] != "SHA-256" or not re.fullmatch("[0-9a-f]{64}", one["value"])
        ]
    for key, kind in NAMED.items():
        having = {one["uuid"] for one in every(list(documents.values()), kind)}
        found += [f"{key} {one} is nobody" for one in every(list(documents.values()), key) if one not in having]
    return found


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    requirements = [
        {"control-id": "ac-6.10"},
        {"control-id": "ac-3.2", "statements": [{"statement-id": "ac-3.2_smt"}]},
    ]
    ssp = {"system-security-plan": {"control-implementation": {"implemented-requirements": requirements}}}
    (tmp_path / "ssp.json").write_text(json.dumps(ssp), "utf-8")
    return tmp_path / "controls.toml"


def schema(shared_data: Path, version: str) -> Any:
    text = (shared_data / "oscal" / f"oscal_complete_schema-{version}.json").read_text("utf-8")
    return jsonschema_rs.validator_for(json.loads(text))


@pytest.mark.parametrize("version", ["1.1.3", "1.2.2"])
def test_every_document_is_valid_by_nists_schema_and_a_broken_one_is_not(
    version: str, report: Report, shared_data: Path
) -> None:
    check = schema(shared_data, version)
    for one in (report, refuted()):
        files = files_of(one)
        for name in DOCUMENTS:
            value = json.loads(files[f"{name}.json"])
            assert list(value) == [name]
            check.validate(value)
            del value[name]["metadata"]["oscal-version"]
            assert not check.is_valid(value)


def test_the_documents_hold_to_what_the_metaschema_asks_beyond_the_schemas(report: Report) -> None:
    for one in (report, refuted()):
        files = files_of(one)
        assert broken({name: json.loads(files[f"{name}.json"]) for name in DOCUMENTS}) == []


@pytest.mark.parametrize(
    ("document", "key", "change", "says"),
    [
        ("component-definition", "resources", {"rlinks": []}, "no rlink"),
        ("component-definition", "control-implementations", {"source": "#x", "href": "#x"}, "no resource #x"),
        ("assessment-plan", "activities", {"props": [{"name": "method", "value": "LOOK"}]}, "property method"),
        ("assessment-plan", "activities", {"parts": [{"name": "assumptions"}]}, "a part without method"),
        ("assessment-plan", "include-subjects", {"subject-uuid": "x"}, "subject-uuid x is nobody"),
        ("assessment-results", "observations", {"methods": ["LOOK"]}, "method LOOK"),
        ("assessment-results", "observations", {"uuid": "x"}, "is nobody"),
        ("assessment-results", "observations", {"props": [{"name": "claim", "value": "x"}]}, "property claim"),
        ("assessment-results", "hashes", {"value": "00"}, "a digest of another length"),
    ],
)
def test_a_document_that_breaks_the_metaschema_is_found(
    report: Report, document: str, key: str, change: dict[str, Any], says: str
) -> None:
    files = files_of(report)
    documents = {name: json.loads(files[f"{name}.json"]) for name in DOCUMENTS}
    next(every(documents[document], key)).update(change)
    assert [one for one in broken(documents) if says in one]


def record(report: Report) -> dict[str, Any]:
    plan = replace(own_plan(), overview="https://provider.example/overview.json")
    value: dict[str, Any] = json.loads(files_of(report, plan)["security-decision-record.json"])
    check = jsonschema_rs.validator_for(
        json.loads((Path(__file__).parent / "fedramp-sdr.json").read_text()), validate_formats=True
    )
    check.validate(value)
    for part in ("metadata", "securityControls", "keySecurityIndicators", "fedRampRequirements"):
        assert not check.is_valid(value | {part: [1]})
    assert not check.is_valid(value | {"certificationPackageOverviewUri": "no address"})
    return value


def test_fedramps_record_is_valid_by_its_schema_and_rounds_nothing_up(report: Report) -> None:
    good, bad = ({one["ksiId"]: one for one in record(case)["keySecurityIndicators"]} for case in (report, refuted()))
    assert good["KSI-MLA-ALA"]["ksiImplementationStatus"] == "Implemented"
    assert "ksiImplementationStatus" not in good["KSI-SCR-MIT"]
    assert good["KSI-SCR-MIT"]["ksiValidation"][0].startswith("Not tested: E1: no-release")
    assert "Not Implemented" in {one.get("ksiImplementationStatus") for one in bad.values()}
    for weaker in (replace(report, pinned=False), replace(report, environment="rehearsal")):
        every_status = set(every(record(weaker), "ksiImplementationStatus"))
        assert not every_status | set(every(record(weaker), "controlImplementationStatus"))


def test_the_titles_of_controls_and_their_objectives_are_nists(shared_data: Path) -> None:
    catalog = json.loads((shared_data / "oscal" / "SP800-53r5_HIGH_resolved_catalog-min.json").read_text("utf-8"))

    known = {one["id"]: one for one in every(catalog, "controls")}
    ours = controls()
    both = set(known) & set(ours)
    assert len(both) >= 50
    for name in both:
        assert ours[name].title == known[name]["title"]
        assert f"{name}_obj" in {part.get("id") for part in known[name]["parts"]}
    assert {control_id(one) for _, served in CLAIMS.values() for one in served} <= set(ours)


def test_inner_uuids_stay_and_only_the_documents_and_the_result_are_fresh(report: Report) -> None:
    first, second = files_of(report), files_of(report, start=1000)
    every = set()
    for name in DOCUMENTS:
        one, other = first[f"{name}.json"], second[f"{name}.json"]
        ours, theirs = (re.findall(rb'"uuid": "([0-9a-f-]{36})"', text) for text in (one, other))
        fresh = [mine for mine, yours in zip(ours, theirs, strict=True) if mine != yours]
        assert len(fresh) == (2 if name == "assessment-results" else 1)
        assert len(set(ours)) == len(ours)
        assert {uuid.UUID(mine.decode()).version for mine in set(ours) - set(fresh)} == {5}
        every |= set(fresh)
    assert len(every) == 4


def test_every_reference_within_the_results_leads_somewhere(report: Report) -> None:
    for one in (report, refuted()):
        files = files_of(one)
        text = files["assessment-results.json"] + files["assessment-plan.json"]
        made = set(re.findall(rb'"uuid": "([0-9a-f-]{36})"', text))
        named = set(re.findall(rb'"(?:observation-uuid|risk-uuid|subject-uuid)": "([0-9a-f-]{36})"', text))
        named |= set(re.findall(rb'"href": "#([0-9a-f-]{36})"', text))
        assert named and named <= made


def test_back_matter_names_the_very_bytes_that_lie_beside_it(report: Report) -> None:
    files = files_of(report)
    for resource in results_of(report)["back-matter"]["resources"]:
        (link,) = resource["rlinks"]
        digest = link["hashes"][0]["value"]
        assert digest == ("a" * 64 if link["href"] == BUNDLE else sha256(files[link["href"]]).hexdigest())


def test_what_was_not_tested_is_told_apart_from_what_failed_and_from_what_holds(scene: Honest, report: Report) -> None:
    found = findings_of(report)
    claims = {claim.id: claim for claim in report.claims}
    assert claims["E1"].status == "unproven" and claims["D1"].status == HOLDS
    status = found["sr-4_obj"]["target"]["status"]
    assert (status["state"], status["reason"]) == ("not-satisfied", "other")
    assert status["remarks"].startswith("Not tested: E1: no-release")
    assert found["au-9.3_obj"]["target"]["status"]["state"] == "satisfied"
    assert "risks" not in results_of(report)["results"][0]

    bad = refuted()
    lost = [claim.id for claim in bad.claims if claim.status == REFUTED]
    assert lost
    result = results_of(bad)["results"][0]
    assert [risk["title"] for risk in result["risks"]] == [f"Claim {one} is refuted" for one in lost]
    failed = {one["target"]["target-id"] for one in result["findings"] if one["target"]["status"]["reason"] == "fail"}
    assert failed == {f"{control_id(one)}_obj" for claim in lost for one in CLAIMS[claim][1]}
    assert all("related-risks" in one for one in result["findings"] if one["target"]["target-id"] in failed)


def test_without_a_pin_and_outside_production_nothing_is_satisfied(scene: Honest, report: Report) -> None:
    for weaker, word in (
        (replace(report, pinned=False), "no pin"),
        (replace(report, environment="rehearsal"), "the environment rehearsal"),
    ):
        states = {one["target"]["status"]["state"] for one in findings_of(weaker).values()}
        assert states == {"not-satisfied"}
        assert word in findings_of(weaker)["au-9.3_obj"]["target"]["status"]["remarks"]


def test_the_plan_can_be_written_before_the_run_and_says_the_same(report: Report) -> None:
    assert files_of(report)["assessment-plan.json"] == files_of(refuted())["assessment-plan.json"]


def test_the_matrix_has_every_control_and_no_cell_that_a_spreadsheet_computes(report: Report) -> None:
    claims = list(report.claims)
    evil = replace(claims[0].reasons[0] if claims[0].reasons else refuted_reason(), code="x", text="y")
    claims[0] = replace(claims[0], says='=HYPERLINK("x")', reasons=(evil,))
    rows = list(csv.reader(io.StringIO(files_of(replace(report, claims=tuple(claims)))["matrix.csv"].decode())))
    assert {row[0] for row in rows[1:]} == {one.name for one in controls().values()}
    assert all(len(row) == len(rows[0]) for row in rows)
    assert any(row[5] == '\'=HYPERLINK("x")' for row in rows)
    assert not [one for row in rows for one in row if one.lstrip()[:1] in tuple("=+-@") if one]
    assert ["not assessed"] in [row[6:7] for row in rows]


def refuted_reason() -> Any:
    return next(claim.reasons[0] for claim in refuted().claims if claim.reasons)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n@x", "＝1", "|x", "%x"])
def test_a_cell_that_would_be_a_formula_becomes_text(text: str) -> None:
    assert cell(text).startswith("'") and cell(text).isprintable()
    assert cell("AC-6(10)") == "AC-6(10)"


def test_an_organisations_map_sends_findings_to_its_own_statements(report: Report, plan_file: Path) -> None:
    overview = "https://provider.example/overview.json"
    plan_file.write_text(
        f'ssp = "ssp.json"\npackage_overview = "{overview}"\n[claims]\nC1 = ["ac-3.2_smt", "AC-6(10)"]\n'
    )
    plan = organisations_plan(plan_file)
    assert plan.overview == overview
    found = results_of(report, plan)["results"][0]["findings"]
    (mine,) = [one for one in found if one["target"]["type"] == "statement-id"]
    assert mine["target"]["target-id"] == "ac-3.2_smt" and "C1" in mine["description"]
    assert json.loads(files_of(report, plan)["assessment-plan.json"])["assessment-plan"]["import-ssp"] == {
        "href": "ssp.json"
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'ssp = "ssp.json"\n[claims]\nC1 = ["ac-6.11"]',
            "'ac-6.11' is not in the security plan; the nearest is ac-6.10",
        ),
        ('ssp = "ssp.json"\n[claims]\nC1 = ["ac-3.2_stm"]', "the nearest is ac-3.2_smt"),
        ('ssp = "ssp.json"\n[claims]\nC9 = ["ac-3.2"]', "claim 'C9' is no claim; the nearest is C"),
        ('ssp = "ssp.json"\n[claims]\nC1 = ["ac-3.2", "AC-3(2)"]', "names an id twice"),
        ('ssp = "ssp.json"\n[claims]\nC1 = []', "needs a list"),
        ('ssp = "ssp.json"\n[claims]\nC1 = "ac-3.2"', "needs a list"),
        ("[claims]\nC1 = ['ac-3.2']", "it needs ssp"),
        ('ssp = "ssp.json"\npackage_overview = "overview.json"\n[claims]', "package_overview needs"),
        ('ssp = "ssp.json"\nsps = 1\n[claims]', "'sps' is no key"),
        ('ssp = "controls.toml"\n[claims]', "controls.toml"),
        ("ssp = ", "controls.toml"),
    ],
)
def test_a_map_that_is_wrong_is_refused_with_what_would_be_right(plan_file: Path, text: str, says: str) -> None:
    plan_file.write_text(text)
    with pytest.raises(MapRefused, match=re.escape(says)):
        organisations_plan(plan_file)


def test_trestle_takes_every_document_and_not_one_whose_uuids_are_doubled(report: Report, tmp_path: Path) -> None:
    (tmp_path / ".trestle").mkdir()
    models = {"component-definition": ComponentDefinition, "assessment-plan": AssessmentPlan}
    for one in (report, refuted()):
        files = files_of(one)
        for name, model in {**models, "assessment-results": AssessmentResults}.items():
            path = tmp_path / f"{name}.json"
            path.write_bytes(files[path.name])
            read = model.oscal_read(path)
            assert read is not None and validates(read)
    results = AssessmentResults.oscal_read(tmp_path / "assessment-results.json")
    result = results.results[0]
    result.observations[1].uuid = result.observations[0].uuid
    assert not validates(results)


def validates(model: Any) -> bool:
    arguments = argparse.Namespace(mode="all", quiet=True)
    return bool(validator_factory.get(arguments).model_is_valid(model, True, None))


def test_the_command_writes_the_folder_and_a_wrong_map_leaves_none(
    scene: Honest, tmp_path: Path, plan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, folder = tmp_path / BUNDLE, tmp_path / "oscal"
    bundle.write_bytes(scene.lab.bundle())
    call = ["evidence", "report", str(bundle), "--pin", str(scene.lab.pin), "--oscal", str(folder)]
    plan_file.write_text('ssp = "ssp.json"\n[claims]\nC1 = ["ac-6.11"]\n')
    assert main([*call, "--controls", str(plan_file)]) == 1
    assert "the nearest is ac-6.10" in capsys.readouterr().err and not folder.exists()
    assert main(call) == 0
    assert "assessment plan and results" in capsys.readouterr().out
    assert sorted(one.name for one in folder.iterdir()) == sorted(
        [*(f"{name}.json" for name in DOCUMENTS), "matrix.csv", "verification.json"]
    )
    said = json.loads((folder / "assessment-results.json").read_text("utf-8"))["assessment-results"]
    hashed = {
        one["rlinks"][0]["href"]: one["rlinks"][0]["hashes"][0]["value"] for one in said["back-matter"]["resources"]
    }
    assert hashed[BUNDLE] == sha256(bundle.read_bytes()).hexdigest()
    assert main(call[:5]) == 2
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert main(call) == 3
