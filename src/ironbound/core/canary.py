"""The verdict on one canary: what a hostile agent's end proves.

Decides, from a probe's row in the table and the way its agent ended, whether the sandbox REFUSED the attempt, the
agent ESCAPED, or the run proves nothing (INCONCLUSIVE). It runs no agent, and does not decide whether the end that it
is told of really happened: that is what the node's signature, the monitor's nonce and the order of the log are for.
The verdicts are those of the design's chapter on attacks; it follows no outer specification.

The reason is the exit reason of an `exited` entry (finished, trap, fuel, stack, limit, ...), or the stage of a
`launch-refused` entry (imports, ...), the text the enforcer's own, the report what the agent left.

Rule 1: REFUSED needs the expected reason and the refusal in the enforcer's own words; whatever is missing, malformed,
        too large or of another run is INCONCLUSIVE. Nothing is rounded up.
Rule 2: a report counts only with this run's nonce and this probe's name, in exactly the expected shape.
Rule 3: a report that says ESCAPED is an escape, whatever else was expected.
Rule 4: patterns are matched in linear time: literals, alternatives, classes and anchors, without repetition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .canonical import FormatError, Value, parse_json

Verdict = Literal["REFUSED", "ESCAPED", "INCONCLUSIVE"]

MAX_TEXT: Final = 8192
"""Characters of the enforcer's text that are looked at; more is INCONCLUSIVE."""
MAX_REPORT: Final = 4096
"""Bytes of an agent's report, as on the worker's boundary."""
MAX_PATTERN: Final = 300
"""Characters of a probe's pattern."""
MAX_REFUSAL: Final = 512
"""Characters of the refusal that is returned."""

FAMILIES: Final = ("wasm", "native")
"""What kind of sandbox a probe is for. A native probe serves containers and microVMs alike."""

STAGES: Final = ("module", "compile", "imports", "instantiate", "run", "channel")
"""Where the sandbox is to stop the agent."""

NATIVE_MODULE: Final = "probe"
"""The one static program that makes every native attempt; its argument is the probe's name."""

FINISHED: Final = "finished"
"""The exit reason of an agent that ended itself with a report."""

_FIELDS: Final = frozenset(
    ("probe", "family", "module", "about", "stage", "reasons", "attempts", "refusal", "controls")
)
_REPORT_FIELDS: Final = frozenset(("nonce", "probe", "verdict", "refusal", "tried", "refused"))
_NAME: Final = re.compile(r"[a-z][a-z0-9]{0,30}(?:-[a-z0-9]{1,30}){0,6}")
_REPETITION: Final = re.compile(r"[*+{}]|\(\?|\\[0-9]")


@dataclass(frozen=True, slots=True)
class Controlled:
    """How a release's tests saw a runtime's probes escape: where (`how`), of how many, and why not the others."""

    runtime: str
    how: str
    probes: int
    without: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Probe:
    """A row of the table of probes. `attempts` is how many attempts the agent makes if nothing stops it."""

    name: str
    family: str
    module: str
    about: str
    stage: str
    reasons: tuple[str, ...]
    attempts: int
    refusal: re.Pattern[str]
    controls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Report:
    verdict: str
    refusal: str
    tried: int
    refused: int


def _string(row: dict[str, Value], name: str, limit: int) -> str:
    value = row[name]
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise FormatError("probe-invalid", f"{name}: expected 1 to {limit} characters")
    return value


def _strings(row: dict[str, Value], name: str) -> tuple[str, ...]:
    value = row[name]
    if not isinstance(value, list) or not 0 < len(value) <= 16:
        raise FormatError("probe-invalid", f"{name}: expected 1 to 16 strings")
    strings = tuple(item for item in value if isinstance(item, str) and 0 < len(item) <= 64)
    if len(strings) != len(value):
        raise FormatError("probe-invalid", f"{name}: expected strings of 1 to 64 characters")
    return strings


def parse_pattern(text: str) -> re.Pattern[str]:
    """The pattern of a refusal. Raises FormatError ('probe-invalid') where it is too long, repeats or is malformed."""
    if not 8 <= len(text) <= MAX_PATTERN or _REPETITION.search(text) is not None:
        raise FormatError("probe-invalid", f"refusal: expected 8 to {MAX_PATTERN} characters without repetition")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise FormatError("probe-invalid", f"refusal: {error}") from None
    if pattern.search("") is not None:
        raise FormatError("probe-invalid", "refusal: a pattern that nothing at all matches")
    return pattern


def parse_probe(value: Value) -> Probe:
    """One row of probes.json. Raises FormatError ('probe-invalid')."""
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise FormatError("probe-invalid", f"expected an object of {', '.join(sorted(_FIELDS))}")
    name, module = _string(value, "probe", 64), _string(value, "module", 80)
    family, stage, attempts = _string(value, "family", 16), _string(value, "stage", 16), value["attempts"]
    if family not in FAMILIES:
        raise FormatError("probe-invalid", f"family: expected one of {', '.join(FAMILIES)}")
    if _NAME.fullmatch(name) is None or module != (NATIVE_MODULE if family == "native" else f"{name}.wasm"):
        raise FormatError("probe-invalid", f"probe, module: expected a name and its .wasm, or {NATIVE_MODULE}")
    if stage not in STAGES:
        raise FormatError("probe-invalid", f"stage: expected one of {', '.join(STAGES)}")
    if type(attempts) is not int or not 1 <= attempts <= 1000:
        raise FormatError("probe-invalid", "attempts: expected 1 to 1000")
    return Probe(
        name=name,
        family=family,
        module=module,
        about=_string(value, "about", 500),
        stage=stage,
        reasons=_strings(value, "reasons"),
        attempts=attempts,
        refusal=parse_pattern(_string(value, "refusal", MAX_PATTERN)),
        controls=_strings(value, "controls"),
    )


def parse_probes(data: bytes) -> tuple[Probe, ...]:
    """The whole table, in its order. Raises FormatError; a name that stands twice is one."""
    value = parse_json(data, limit=256 * 1024)
    if not isinstance(value, list) or not value:
        raise FormatError("probe-invalid", "expected a list of probes")
    probes = tuple(parse_probe(row) for row in value)
    if len({probe.name for probe in probes}) != len(probes):
        raise FormatError("probe-invalid", "two probes of one name")
    return probes


def applies(probe_family: str, family: str) -> bool:
    """Whether a sandbox of a family (`core.profile`) has to refuse this probe.

    A microVM runs the native probes: what they try is tried inside of it.
    """
    return probe_family == family or (probe_family, family) == ("native", "microvm")


def _count(value: Value) -> int:
    if type(value) is not int or value < 0:
        raise FormatError("report-invalid", "tried, refused: expected counts")
    return value


def _parse_report(report: str, probe: str, nonce: str) -> _Report:
    try:
        data = report.encode("utf-8", "strict")
    except UnicodeEncodeError:
        raise FormatError("report-invalid", "the report holds a lone surrogate") from None
    value = parse_json(data, limit=MAX_REPORT)
    if not isinstance(value, dict) or value.keys() != _REPORT_FIELDS:
        raise FormatError("report-invalid", f"expected an object of {', '.join(sorted(_REPORT_FIELDS))}")
    if value["nonce"] != nonce or value["probe"] != probe:
        raise FormatError("report-invalid", "the report is of another run: nonce or probe differ")
    verdict, refusal = value["verdict"], value["refusal"]
    if not isinstance(verdict, str) or not isinstance(refusal, str):
        raise FormatError("report-invalid", "verdict, refusal: expected strings")
    return _Report(verdict, refusal, _count(value["tried"]), _count(value["refused"]))


def _reported(probe: Probe, reason: str, report: _Report) -> tuple[Verdict, str]:
    if report.verdict == "ESCAPED":  # Rule 3
        return "ESCAPED", report.refusal[:MAX_REFUSAL]
    if report.verdict != "REFUSED" or FINISHED not in probe.reasons or reason != FINISHED:
        return "INCONCLUSIVE", f"the report says {report.verdict[:40]} and the agent ended by {reason[:40]}"
    if not report.tried == report.refused == probe.attempts:
        return "INCONCLUSIVE", f"{report.refused} of {report.tried} refused, expected all of {probe.attempts}"
    if probe.refusal.search(report.refusal) is None:
        return "INCONCLUSIVE", f"not the expected refusal: {report.refusal[:400]}"
    return "REFUSED", report.refusal[:MAX_REFUSAL]


def _stopped(probe: Probe, reason: str, text: str) -> tuple[Verdict, str]:
    if reason == FINISHED:
        return "INCONCLUSIVE", "the agent finished without a report"
    if reason not in probe.reasons:
        return "INCONCLUSIVE", f"ended by {reason[:40]}, expected {' or '.join(probe.reasons)[:200]}: {text[:200]}"
    found = probe.refusal.search(text)
    if found is None:
        return "INCONCLUSIVE", f"not the expected refusal: {text[:400]}"
    return "REFUSED", _line_around(text, found.start())


def _line_around(text: str, at: int) -> str:
    """The line of the enforcer's text in which the refusal stands."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return text[start : len(text) if end < 0 else end].strip()[:MAX_REFUSAL]


def verdict(probe: Value, nonce: str, reason: str, text: str, report: str) -> tuple[Verdict, str]:
    """What this end proves: the verdict and the refusal (for ESCAPED what succeeded, for INCONCLUSIVE what is missing).

    `probe` is a row of probes.json. Never raises: what cannot be read proves nothing.
    """
    try:
        row = parse_probe(probe)
    except FormatError as error:
        return "INCONCLUSIVE", str(error)
    if not nonce:
        return "INCONCLUSIVE", "there is no nonce"
    if len(text) > MAX_TEXT:
        return "INCONCLUSIVE", f"a text of {len(text)} characters, expected at most {MAX_TEXT}"
    if not report:
        return _stopped(row, reason, text)
    try:
        said = _parse_report(report, row.name, nonce)
    except FormatError as error:
        return "INCONCLUSIVE", str(error)
    return _reported(row, reason, said)
