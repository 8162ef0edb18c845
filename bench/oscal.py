"""The OSCAL documents by every constraint of NIST's metaschema, as liboscal-java has them (OSCAL 1.1.3).

Not a test, since it needs Java 17, Maven and what Maven fetches. Constraints go across documents, so a small security
plan, profile and NIST's catalog lie beside them. Each broken document must be found, or the row says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.verifier.lab import honest

from ironbound.evidence.oscal.controls import own_plan
from ironbound.evidence.oscal.write import oscal_files
from ironbound.verifier.verify import Report

HERE = Path(__file__).resolve().parent / "metaschema"
CATALOG = HERE.parents[2] / "shared" / "data" / "oscal" / "SP800-53r5_HIGH_resolved_catalog-min.json"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
DOCUMENTS = ("component-definition", "assessment-plan", "assessment-results")
HEAD = {"title": "x", "last-modified": "2026-01-01T00:00:00Z", "version": "1", "oscal-version": "1.1.3"}
HIGH = "fips-199-high"


def _beside() -> dict[str, Any]:
    kinds = ("confidentiality", "integrity", "availability")
    characteristics = {
        "system-ids": [{"id": "x"}],
        "system-name": "x",
        "description": "x",
        "security-sensitivity-level": "high",
        "system-information": {"information-types": [{"title": "x", "description": "x"}]},
        "security-impact-level": {f"security-objective-{one}": HIGH for one in kinds},
        "status": {"state": "operational"},
        "authorization-boundary": {"description": "x"},
    }
    part = {"uuid": _id(), "type": "this-system", "title": "x", "description": "x", "status": {"state": "operational"}}
    plan = {
        "uuid": _id(),
        "metadata": HEAD,
        "import-profile": {"href": "profile.json"},
        "system-characteristics": characteristics,
        "system-implementation": {"users": [{"uuid": _id()}], "components": [part]},
        "control-implementation": {
            "description": "x",
            "implemented-requirements": [{"uuid": _id(), "control-id": "ac-6.10"}],
        },
    }
    imports = [{"href": "catalog.json", "include-all": {}}]
    profile = {"uuid": _id(), "metadata": HEAD, "imports": imports, "merge": {"as-is": True}}
    return {"system-security-plan": plan, "profile": profile}


def _id() -> str:
    return str(uuid.uuid4())


def _write(folder: Path, report: Report, change: tuple[str, bytes, bytes] | None = None) -> list[str]:
    folder.mkdir()
    files = oscal_files(report, own_plan(), "evidence.ironbound", "a" * 64, 1_790_000_000_000, _id)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    for name, value in _beside().items():
        (folder / f"{name}.json").write_text(json.dumps({name: value}), "utf-8")
    shutil.copy(CATALOG, folder / "catalog.json")
    if change is None:
        return [str(folder / f"{name}.json") for name in DOCUMENTS]
    name, old, new = change
    data = files[name]
    assert old in data, f"{name} has no {old!r}"
    (folder / name).write_bytes(data.replace(old, new, 1))
    return [str(folder / name)]


BROKEN = {
    "a method that OSCAL does not know": ("assessment-plan.json", b'"value": "EXAMINE"', b'"value": "LOOK"'),
    "a property of OSCAL's that it does not have": ("assessment-plan.json", b'"name": "method"', b'"name": "way"'),
    "a resource that leads nowhere": ("component-definition.json", b'"rlinks"', b'"document-ids"'),
    "a digest that is too short": ("assessment-results.json", b'"value": "' + b"a" * 64, b'"value": "aa'),
}


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows: a document, how many constraints it breaks, and the first."""
    tools = [shutil.which(one) for one in ("mvn", "javac", "java")]
    if not all(tools) or not CATALOG.is_file():
        return [{"document": "needs Java 17, Maven and NIST's catalog", "broken": "not measured"}]
    mvn, javac, java = map(str, tools)
    bad = honest()
    bad.lab.outcome(1)
    with tempfile.TemporaryDirectory(prefix="ironbound-oscal-") as name:
        base = Path(name)
        libraries = f"{base}/lib/*:{base}"
        subprocess.run([mvn, "-q", "-B", "-f", HERE / "pom.xml", PLUGIN, f"-DoutputDirectory={base}/lib"], check=True)
        subprocess.run([javac, "-cp", libraries, "-d", base, HERE / "Constraints.java"], check=True)
        good, refuted = honest().lab.verify(), bad.lab.verify()
        cases = {"honest": _write(base / "honest", good), "refuted": _write(base / "refuted", refuted)}
        cases |= {what: _write(base / f"broken{at}", good, how) for at, (what, how) in enumerate(BROKEN.items())}
        rows = []
        for case, files in cases.items():
            out = subprocess.run(
                [java, "-cp", libraries, "Constraints", *files], check=False, capture_output=True, text=True
            )
            lines = [line.split("\t") for line in out.stdout.splitlines() if "\t" in line]
            if len(lines) != len(files):
                lines = [[files[0], "1", (out.stderr.splitlines() or ["?"])[-1]]]
            for file, count, first in lines:
                aim = "yes" if (int(count) > 0) == (case in BROKEN) else "NO"
                rows.append({"case": case, "document": Path(file).name, "broken": int(count), "as it should": aim}
                            | ({"first": first[:120]} if first else {}))  # fmt: skip
        return rows
