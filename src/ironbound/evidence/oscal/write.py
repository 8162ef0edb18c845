"""The folder that `ironbound evidence report --oscal DIR` fills: three documents, the matrix, the verifier's words, and
FedRAMP's record if the organisation named its package overview.

Decides only which file leans on which.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from ironbound.verifier.output import report_value
from ironbound.verifier.verify import Report

from .controls import Plan
from .documents import File, documents, file_of
from .fedramp import RECORD, decision_record
from .matrix import matrix_csv

VERDICT: Final = "verification.json"
MATRIX: Final = "matrix.csv"


def oscal_files(
    report: Report, plan: Plan, bundle: str, bundle_sha256: str, now_ms: int, fresh: Callable[[], str]
) -> dict[str, bytes]:
    """Every file by name. `bundle`: the evidence file's name and digest; `fresh` makes a uuid."""
    verdict, matrix = _json(report_value(report)), matrix_csv(report, plan)
    files = (
        File(bundle, "application/zip", bundle_sha256, "Evidence bundle"),
        file_of(VERDICT, "application/json", verdict, "What the verifier says of it"),
        file_of(MATRIX, "text/csv", matrix, "Control matrix"),
    )
    made = documents(report, plan, files, now_ms, fresh)
    if plan.overview is not None:
        made[RECORD] = decision_record(report, plan, plan.overview, files, now_ms)
    return {VERDICT: verdict, MATRIX: matrix, **{name: _json(value) for name, value in made.items()}}


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
