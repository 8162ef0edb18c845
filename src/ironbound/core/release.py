"""What a release key signs about a wheel: provenance, tests, surface and installed files.

Decides whether bytes are one of these four, signed by that key and by nobody else, and where two listings of files
differ. It does not decide whether a release is good, whose the key is, or whether any file is there: `wire.measure`
looks, the verifier judges.

Each is a DSSE envelope over an in-toto Statement v1 whose subject is the wheel; the provenance's is the sdist too.
Predicates of others' types need the fields that their specification requires (SLSA provenance v1 "Schema", in-toto
test result v0.1) and may have more; ours have exactly their fields.

Rule 1: the signature is checked before the statement is read, and one key signs, once.
Rule 2: a file has one path: a root's name, then names without `.`, `..` or an empty one.
Rule 3: tests that did not run did not pass: PASSED takes a test that passed, and none that failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .canonical import Digest, FormatError, Value, canonical, parse_canonical, sha256_hex
from .envelope import SigningKey, envelope_from_value, sign_envelope, verify_envelope
from .keys import PublicKey
from .statement import (
    STATEMENT_TYPE,
    TYPE_PREFIX,
    Shape,
    choice,
    count,
    digest,
    document,
    each,
    printable,
    record,
    text,
)

#: Bytes of one envelope, files of an installation, characters of a path, things that a statement is about.
MAX_SIGNED: Final = 16 << 20
MAX_FILES: Final = 20_000
MAX_PATH: Final = 1024
MAX_SUBJECTS: Final = 16
MAX_TESTS: Final = 20_000

PREDICATES: Final[Mapping[str, str]] = {
    "provenance": "https://slsa.dev/provenance/v1",
    "tests": "https://in-toto.io/attestation/test-result/v0.1",
    "surface": f"{TYPE_PREFIX}surface-manifest/v1",
    "install": f"{TYPE_PREFIX}install-manifest/v1",
}
ROOTS: Final = ("lib", "python", "site", "stdlib")
"""What an installed file belongs to; `python` is the interpreter, one file."""

_KINDS: Final = {predicate: kind for kind, predicate in PREDICATES.items()}
_subject = record(name=text(200), digest=record(sha256=digest))
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def _needs(**fields: Shape) -> Shape:
    """An object with at least these fields, as a type of others is read."""

    def shape(value: Value, path: str) -> None:
        if type(value) is not dict or not fields.keys() <= value.keys():
            raise FormatError("release-shape", f"{path}: expected at least the fields " + ", ".join(sorted(fields)))
        for name, inner in fields.items():
            inner(value[name], f"{path}.{name}")

    return shape


def _files(value: Value, path: str) -> None:
    if type(value) is not dict or not 1 <= len(value) <= MAX_FILES:
        raise FormatError("release-files", f"{path}: expected 1 to {MAX_FILES} files")
    for name, sha256 in value.items():
        require_path(name)
        digest(sha256, name[:80])
    if "python" not in value:
        raise FormatError("release-files", f"{path}: the interpreter's own file is missing")


def _tests(value: Value, path: str) -> None:
    _needs(
        result=choice("PASSED", "WARNED", "FAILED"),
        configuration=each(document, 64),
        passedTests=each(text(), MAX_TESTS),
        warnedTests=each(text(), MAX_TESTS),
        failedTests=each(text(), MAX_TESTS),
    )(value, path)
    if type(value) is dict and value["result"] == "PASSED" and (value["failedTests"] or not value["passedTests"]):
        raise FormatError("release-tests", f"{path}: PASSED takes a test that passed, and none that failed")


_SHAPES: Final[Mapping[str, Shape]] = {
    "provenance": _needs(
        buildDefinition=_needs(
            buildType=text(), externalParameters=document, resolvedDependencies=each(document, 4096)
        ),
        runDetails=_needs(builder=_needs(id=text())),
    ),
    "tests": _tests,
    "surface": record(
        list_sha256=digest,
        agent_surface_sha256=digest,
        verdict=choice("ABSENT", "PRESENT-REFUSES", "PRESENT-ACTIVE"),
        files=count,
        listed=count,
        unlisted=count,
        gone=count,
        unread=count,
        switches=record(active=count, refused=count, explained=count),
    ),
    "install": record(
        version=printable,
        package_sha256=digest,
        python=record(version=printable, implementation=printable),
        files=_files,
    ),
}


@dataclass(frozen=True, slots=True)
class Signed:
    """One statement of a release. `kind` is a key of PREDICATES, `sha256` is of the envelope's bytes."""

    kind: str
    sha256: Digest
    subjects: Mapping[str, Digest]
    predicate: Mapping[str, Any]

    @property
    def wheel(self) -> Digest:
        """SHA-256 of the wheel that it is about."""
        return next(sha256 for name, sha256 in self.subjects.items() if name.endswith(".whl"))


def read_signed(data: bytes, key: PublicKey) -> Signed:
    """One statement, which this key signed. FormatError, SignatureInvalid (SignerUnknown if it is another's)."""
    envelope = envelope_from_value(parse_canonical(data, limit=MAX_SIGNED))
    verify_envelope(envelope, {key.keyid: key})
    kind, subjects, predicate = _statement(parse_canonical(envelope.payload, limit=MAX_SIGNED))
    return Signed(kind, sha256_hex(data), subjects, predicate)


def sign_release(kind: str, subjects: Mapping[str, Digest], predicate: Mapping[str, Any], key: SigningKey) -> bytes:
    """The envelope of a statement; FormatError if `read_signed` would refuse it."""
    statement: Value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(subjects.items())],
        "predicateType": PREDICATES[kind],
        "predicate": dict(predicate),
    }
    _statement(statement)
    data = canonical(sign_envelope(canonical(statement), [key]).as_value())
    if len(data) > MAX_SIGNED:
        raise FormatError("too-large", f"expected at most {MAX_SIGNED} bytes, got {len(data)}")
    return data


def _statement(value: Value) -> tuple[str, dict[str, Digest], dict[str, Any]]:
    if not isinstance(value, dict) or value.keys() != {"_type", "subject", "predicateType", "predicate"}:
        raise FormatError("release-shape", "expected an in-toto statement")
    if value["_type"] != STATEMENT_TYPE:
        raise FormatError("release-shape", f"expected the type {STATEMENT_TYPE}")
    kind = _KINDS.get(str(value["predicateType"]))
    if kind is None:
        raise FormatError(
            "release-kind", f"no statement of a release has the type {str(value['predicateType'])[:80]!a}"
        )
    predicate = value["predicate"]
    _SHAPES[kind](predicate, kind)
    if not isinstance(predicate, dict):
        raise FormatError("release-shape", f"{kind}: expected an object")
    return kind, _subjects(value["subject"]), predicate


def _subjects(value: Value) -> dict[str, Digest]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SUBJECTS:
        raise FormatError("release-subject", f"expected 1 to {MAX_SUBJECTS} subjects")
    subjects: dict[str, Digest] = {}
    items: list[Any] = value
    for one in items:
        _subject(one, "subject")
        name = one["name"]
        if _FILE_NAME.fullmatch(name) is None or name in subjects:
            raise FormatError("release-subject", f"expected names of files, each once, got {name[:80]!a}")
        subjects[name] = Digest(one["digest"]["sha256"])
    if sum(name.endswith(".whl") for name in subjects) != 1:
        raise FormatError("release-subject", "expected one wheel among the subjects")
    return subjects


def require_path(path: str) -> None:
    """Raise FormatError (`release-path`) unless `path` is the one name of an installed file."""
    root, *rest = path.split("/")
    sound = len(path) <= MAX_PATH and root in ROOTS and bool(rest) != (root == "python")
    if not sound or _CONTROL.search(path) is not None or any(name in ("", ".", "..") for name in rest):
        raise FormatError("release-path", f"no path of an installed file: {path[:200]!a}")


def files_root(files: Mapping[str, Digest]) -> Digest:
    """SHA-256 over one `sha256  path` line for each file, by path, part by part."""
    lines = [f"{files[path]}  {path}\n" for path in sorted(files, key=lambda path: path.split("/"))]
    return sha256_hex("".join(lines).encode("utf-8", "surrogateescape"))


def differences(manifest: Mapping[str, Digest], found: Mapping[str, Digest]) -> list[dict[str, str | None]]:
    """Where what was found is not the manifest, by path; `expected` is None for what nobody signed for."""
    return [
        {"path": path, "expected": manifest.get(path), "got": found.get(path)}
        for path in sorted(manifest.keys() | found.keys())
        if manifest.get(path) != found.get(path)
    ]
