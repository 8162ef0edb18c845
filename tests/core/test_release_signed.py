"""A release says what its key signed, whole and in one spelling, and nothing that anybody else wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ironbound.core import release as r
from ironbound.core.canonical import Digest, FormatError, b64encode, canonical, parse_canonical, sha256_hex
from ironbound.core.envelope import sign_envelope
from ironbound.core.keys import PrivateKey, SignatureInvalid

KEY, OTHER = PrivateKey.generate(b"\1" * 32), PrivateKey.generate(b"\2" * 32)
WHEEL, SUM = "ironbound-0.1.0-py3-none-any.whl", sha256_hex(b"wheel")
FILES = {"python": SUM, "stdlib/os.py": SUM, "site/ironbound/core/a.py": SUM, "lib/usr/lib/libc.so.6": SUM}

PREDICATES: Mapping[str, dict[str, Any]] = {
    "provenance": {
        "buildDefinition": {"buildType": "https://x/y", "externalParameters": {}, "resolvedDependencies": []},
        "runDetails": {"builder": {"id": "https://x/z"}},
    },
    "tests": {"result": "PASSED", "configuration": [], "passedTests": ["a"], "warnedTests": [], "failedTests": []},
    "surface": {
        "list_sha256": SUM,
        "agent_surface_sha256": SUM,
        "verdict": "ABSENT",
        **dict.fromkeys(("files", "listed", "unlisted", "gone", "unread"), 0),
        "switches": {"active": 0, "refused": 0, "explained": 0},
    },
    "install": {
        "version": "0.1.0",
        "package_sha256": SUM,
        "python": {"version": "3.11.2", "implementation": "cpython"},
        "files": FILES,
    },
}


def signed(statement: Any, key: PrivateKey = KEY) -> bytes:
    return canonical(sign_envelope(canonical(statement), [key]).as_value())


def statement(kind: str, **changes: Any) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": WHEEL, "digest": {"sha256": SUM}}],
        "predicateType": r.PREDICATES[kind],
        "predicate": PREDICATES[kind],
        **changes,
    }


def refused(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        r.read_signed(data, KEY.public)
    return caught.value.code


@pytest.mark.parametrize("kind", r.PREDICATES)
def test_each_statement_reads_as_it_was_signed_and_no_byte_of_it_can_change(kind: str) -> None:
    data = r.sign_release(kind, {WHEEL: SUM}, PREDICATES[kind], KEY)
    assert data == signed(statement(kind))
    got = r.read_signed(data, KEY.public)
    assert (got.kind, got.sha256, got.wheel, got.predicate) == (kind, sha256_hex(data), SUM, PREDICATES[kind])
    for position in range(0, len(data), 7):
        forged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises((FormatError, SignatureInvalid)):
            r.read_signed(forged, KEY.public)


def test_anothers_signature_counts_for_nothing_and_neither_does_a_second_one() -> None:
    with pytest.raises(SignatureInvalid):
        r.read_signed(signed(statement("tests"), OTHER), KEY.public)
    payload = canonical(statement("tests"))
    both = canonical(sign_envelope(payload, [KEY, OTHER]).as_value())
    with pytest.raises(SignatureInvalid):
        r.read_signed(both, KEY.public)
    value = sign_envelope(payload, [OTHER]).as_value()
    assert isinstance(value, dict)
    value["signatures"][0]["keyid"] = KEY.public.keyid  # type: ignore[index, call-overload]
    with pytest.raises(SignatureInvalid):
        r.read_signed(canonical(value), KEY.public)


def test_a_signature_moves_to_no_other_payload() -> None:
    value = parse_canonical(signed(statement("tests")), limit=1 << 20)
    assert isinstance(value, dict)
    failed = {**PREDICATES["tests"], "result": "FAILED", "failedTests": ["a"]}
    value["payload"] = b64encode(canonical(statement("tests", predicate=failed)))
    with pytest.raises(SignatureInvalid):
        r.read_signed(canonical(value), KEY.public)


def test_another_type_and_anothers_shape_are_refused() -> None:
    assert refused(signed(statement("tests", predicateType="https://ironbound.dev/grant/v1"))) == "release-kind"
    assert refused(signed(statement("tests", predicateType=["x"]))) == "release-kind"
    assert refused(signed(statement("tests", predicateType=r.PREDICATES["provenance"]))) == "release-shape"
    assert refused(signed(statement("tests", _type="https://in-toto.io/Statement/v0.1"))) == "release-shape"
    assert refused(signed([])) == "release-shape"
    assert refused(signed(statement("surface", predicate={**PREDICATES["surface"], "more": 1}))) == "statement-shape"
    assert refused(b"{}") == "envelope-shape"
    assert refused(b"\xff") == "not-utf8"


@pytest.mark.parametrize(
    "subject",
    [
        [],
        [{"name": WHEEL, "digest": {"sha256": SUM}}] * 2,
        [{"name": "x.tar.gz", "digest": {"sha256": SUM}}],
        [{"name": f"{n}.whl", "digest": {"sha256": SUM}} for n in range(2)],
        [{"name": f"../{WHEEL}", "digest": {"sha256": SUM}}],
        [{"name": f"{n}.tar", "digest": {"sha256": SUM}} for n in range(r.MAX_SUBJECTS)]
        + [{"name": WHEEL, "digest": {"sha256": SUM}}],
        "x",
    ],
)
def test_a_statement_is_about_one_wheel(subject: Any) -> None:
    assert refused(signed(statement("tests", subject=subject))) == "release-subject"


@pytest.mark.parametrize("sums", [{"sha512": "00"}, {"sha256": SUM.upper()}, {"sha256": SUM, "md5": "0"}, SUM])
def test_the_wheel_has_its_sha256_and_no_other_digest(sums: Any) -> None:
    assert refused(signed(statement("tests", subject=[{"name": WHEEL, "digest": sums}]))) == "statement-shape"


@pytest.mark.parametrize("change", [{"passedTests": []}, {"failedTests": ["b"]}])
def test_what_did_not_run_or_failed_did_not_pass(change: dict[str, Any]) -> None:
    predicate = {**PREDICATES["tests"], **change}
    assert refused(signed(statement("tests", predicate=predicate))) == "release-tests"
    honest = statement("tests", predicate={**predicate, "result": "WARNED"})
    assert r.read_signed(signed(honest), KEY.public).predicate["result"] == "WARNED"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "etc/passwd",
        "site",
        "site/",
        "site/../stdlib/os.py",
        "site/./a.py",
        "site//a.py",
        "python/a",
        "lib/a\nb",
        "site/a\0b",
        "site/" + "a" * r.MAX_PATH,
    ],
)
def test_a_path_that_leaves_its_root_or_has_a_second_spelling_is_refused(path: str) -> None:
    files = {**FILES, path: SUM}
    assert refused(signed(statement("install", predicate={**PREDICATES["install"], "files": files}))) == "release-path"


def test_a_path_that_stands_twice_is_refused() -> None:
    payload = canonical(statement("install"))
    twice = payload.replace(b'"stdlib/os.py":', b'"python":', 1)
    assert twice != payload
    assert refused(canonical(sign_envelope(twice, [KEY]).as_value())) == "duplicate-key"


@pytest.mark.parametrize(
    ("count", "code"), [(r.MAX_FILES, None), (r.MAX_FILES + 1, "release-files"), (0, "release-files")]
)
def test_a_manifest_holds_twenty_thousand_files_and_none_more(count: int, code: str | None) -> None:
    files = {f"site/{'d' * 80}/{n}.cpython-311.pyc": SUM for n in range(count - 1)} | ({"python": SUM} if count else {})
    data = signed(statement("install", predicate={**PREDICATES["install"], "files": files}))
    if code is None:
        assert len(r.read_signed(data, KEY.public).predicate["files"]) == count
    else:
        assert refused(data) == code


def test_bytes_beyond_the_limit_are_refused_before_they_are_read() -> None:
    assert refused(b" " * (r.MAX_SIGNED + 1)) == "too-large"


def test_an_installation_without_its_interpreter_is_none() -> None:
    files = {path: sha256 for path, sha256 in FILES.items() if path != "python"}
    assert refused(signed(statement("install", predicate={**PREDICATES["install"], "files": files}))) == "release-files"


def test_what_is_signed_is_what_can_be_read() -> None:
    with pytest.raises(FormatError):
        r.sign_release("tests", {"x": SUM}, PREDICATES["tests"], KEY)
    with pytest.raises(FormatError):
        r.sign_release("tests", {WHEEL: SUM}, {"result": "PASSED"}, KEY)


def test_every_file_that_differs_lacks_or_is_nobodys_is_named_and_moves_the_root() -> None:
    manifest = {path: Digest(sha256) for path, sha256 in FILES.items()}
    other = sha256_hex(b"other")
    found = {path: sha256 for path, sha256 in manifest.items() if path != "python"}
    found |= {"stdlib/os.py": other, "site/evil.pth": other}
    assert r.differences(manifest, dict(manifest)) == []
    assert r.differences(manifest, found) == [
        {"path": "python", "expected": SUM, "got": None},
        {"path": "site/evil.pth", "expected": None, "got": other},
        {"path": "stdlib/os.py", "expected": SUM, "got": other},
    ]
    assert r.files_root(manifest) == r.files_root(dict(reversed(manifest.items())))
    assert r.files_root(manifest) != r.files_root(found)
    assert r.files_root({"python": SUM}) == sha256_hex(f"{SUM}  python\n".encode())
