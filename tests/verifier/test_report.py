"""The report checks itself in the reader's browser, and says what the Python verifier says of every forged log."""

from __future__ import annotations

import inspect
import io
import json
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from core import test_roster
from ironbound.core.canonical import sha256_hex
from ironbound.core.statement import ACTS, VOICES
from ironbound.evidence.report import build
from ironbound.evidence.report.build import MAX_LOG, packed_log, report_html
from ironbound.verifier.bundle import Bundle, BundleBroken
from ironbound.verifier.output import report_value
from ironbound.verifier.verify import Report, verify_bundle
from pages import dump, needs_browser, state

from . import lab as lab_module
from . import test_attacks, test_dated_back, test_releases_judged, test_seen_starts
from .lab import SURFACE, Honest, Lab, honest, key
from .released import statements

CHECK = (resources.files("ironbound.evidence.report") / "check.js").read_text("utf-8")


@pytest.fixture
def page(tmp_path: Path) -> Callable[[bytes], str]:
    """What a page says in a browser."""

    def show(html: bytes) -> str:
        (tmp_path / "report.html").write_bytes(html)
        return dump(tmp_path / "report.html", tmp_path / "profile")

    return show


def report_of(lab: Lab) -> tuple[bytes, Report]:
    return report_html(io.BytesIO(lab.bundle()), lab.pin)


@pytest.fixture(scope="module")
def good() -> bytes:
    return report_of(honest().lab)[0]


def test_the_page_is_one_file_that_may_load_nothing_and_is_the_same_each_time(good: bytes) -> None:
    text = good.decode()
    assert report_of(honest().lab)[0] == good
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(
        r"<(link|img|iframe|object|embed|base)\b|\bsrc=|\bstyle=|\bon[a-z]+=", text.split("<script")[0]
    )
    assert text.index("What this does not prove") < text.index("Claims, from the inside out")


@needs_browser
def test_the_page_agrees_with_the_verifier_and_draws_every_grant_and_launch(
    good: bytes, page: Callable[[bytes], str]
) -> None:
    dom = page(good)
    assert state(dom) == "agrees"
    for name in ("time", "grants", "launches", "canaries", "reconciled"):
        part = dom.split(f'id="{name}-here"')[1].split("</section>")[0]
        assert "it needs JavaScript" not in part, name
    grants, launches = (dom.split(f'id="{one}-here"')[1].split("</section>")[0] for one in ("grants", "launches"))
    assert "ada, bob" in grants and "equals" not in grants
    assert re.search(r"[0-9a-f]{12}, entry \d+ by ", launches)


@needs_browser
def test_one_changed_byte_of_an_entry_leaves_nothing_that_counts(page: Callable[[bytes], str]) -> None:
    lab = honest().lab
    html, report = report_of(lab)
    bundle = Bundle(io.BytesIO(lab.bundle()))
    packed = packed_log(bundle, report.voids)
    lab.entries[5] = (
        lab.entries[5].replace(b'"sig":"A', b'"sig":"B')
        if b'"sig":"A' in lab.entries[5]
        else (lab.entries[5][:-8] + bytes([lab.entries[5][-8] ^ 1]) + lab.entries[5][-7:])
    )
    members = lab.members() | {"checkpoint": bundle.read("checkpoint")}
    forged = packed_log(Bundle(io.BytesIO(lab_module.pack(members))), report.voids)
    assert forged != packed
    dom = page(html.replace(packed.encode(), forged.encode()))
    assert state(dom) == "broken" and "root-differs" in dom


def _no_outcome(scene: Honest) -> None:
    scene.lab.intent("clerk", scene.launch, scene.grant)


def _stranger_s_release(scene: Honest) -> None:
    theirs = statements("next", key("stranger"), SURFACE)["provenance"]
    scene.lab.expect(scene.lab.approve_release("next", provenance=theirs))
    scene.lab.service("monitor", "next")
    scene.lab.measure("monitor", "next")


@needs_browser
@pytest.mark.parametrize(
    ("act", "code"), [(_no_outcome, "outcome-missing"), (_stranger_s_release, "release-not-signed")]
)
def test_a_verifier_that_hides_what_it_found_is_contradicted(
    page: Callable[[bytes], str], act: Callable[[Honest], None], code: str
) -> None:
    scene = honest(releases=True)
    act(scene)
    html, report = report_of(scene.lab)
    assert code in json.dumps(report_value(report))
    assert state(page(html)) == "agrees"
    value = report_value(report)
    for claim in value["claims"]:
        claim["reasons"] = [one for one in claim["reasons"] if one["code"] != code]
    lying = re.sub(rb'("report":)\{.*?\}(\}</script>)', rb"\1" + json.dumps(value).encode() + rb"\2", html, count=1)
    dom = page(lying)
    assert state(dom) == "disagrees" and f"disagrees: {code}" in dom


@needs_browser
def test_of_a_log_that_is_too_large_the_many_entries_stand_as_hashes_and_are_told_so(
    page: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = honest(releases=True)
    for _ in range(20):
        scene.act()
    monkeypatch.setattr(build, "MAX_LOG", 1)
    dom = page(report_of(scene.lab)[0])
    assert state(dom) == "agrees" and "entries stand in this page as hashes only" in dom
    assert "agrees with the verifier as far as it can check" in dom
    assert "not checked here: started, observed as hashes only" in dom
    rows = dom.split('id="reconciled-here"')[1].split("</section>")[0]
    assert "counted by the verifier" in rows
    assert rows.count('<td class="word">21</td>') == 2


@needs_browser
def test_another_pin_breaks_the_page(page: Callable[[bytes], str], good: bytes) -> None:
    pin = str(honest().lab.pin)
    other = pin.replace(pin.split(":")[1], "0" * 64)
    said = good.replace(f'"pin":"{pin}","report"'.encode(), f'"pin":"{other}","report"'.encode())
    assert said != good
    dom = page(said)
    assert state(dom) == "broken" and "pin-differs" in dom


@needs_browser
def test_what_an_entry_says_is_text_and_never_markup(page: Callable[[bytes], str]) -> None:
    scene = honest()
    scene.lab.exit(scene.started, reason="<img src=x onerror=alert(1)>", text="</script><b>bold</b>")
    html, _ = report_of(scene.lab)
    dom = page(html)
    assert state(dom) == "agrees"
    assert "<img" not in dom and escape("<img src=x") in dom.replace("&quot;", '"')


def vectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, bytes, Any]]:
    """Every log that the tests of attacks on the verifier and on the roster make, with the pin of its deployment."""
    heard: list[tuple[str, bytes, Any]] = []
    packed, whole = lab_module.pack, Lab.bundle
    name, pin = "", honest().lab.pin

    def bundle(self: Lab) -> bytes:
        nonlocal pin
        pin = self.pin
        return whole(self)

    def pack(members: Any) -> bytes:
        data = packed(members)
        heard.append((name, data, pin))
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Lab, "bundle", bundle)
        for module in (lab_module, test_attacks, test_dated_back):
            patch.setattr(module, "pack", pack)
        dated = test_dated_back.scene.__wrapped__
        for module, scene in ((test_attacks, honest), (test_seen_starts, honest), (test_dated_back, dated)):
            for name, test in inspect.getmembers(module, inspect.isfunction):
                for arguments in calls(name, test, {"scene": scene}, bare=module is test_dated_back):
                    test(**arguments)
    yield from heard
    for name, test in inspect.getmembers(test_roster, inspect.isfunction):
        for arguments in calls(name, test, {"lab": test_roster.lab.__wrapped__}):
            test(**arguments)
            lab = arguments["lab"]
            if lab.replay.size == len(lab.entries) > 1:
                yield name, lab.bundle(), lab.pin


def calls(name: str, test: Any, made: Mapping[str, Callable[[], Any]], bare: bool = False) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a test whose fixtures we can make; `bare`: also of one that takes none."""
    wanted = set(inspect.signature(test).parameters)
    fixtures = wanted & made.keys()
    if not name.startswith("test_") or not (fixtures or bare):
        return
    marks = [one for one in getattr(test, "pytestmark", ()) if one.name == "parametrize"]
    named = [one for mark in marks for one in ([mark.args[0]] if isinstance(mark.args[0], str) else mark.args[0])]
    if len(marks) > 1 or wanted != {*fixtures, *named}:
        return
    for case in marks[0].args[1] if marks else [()]:
        values = case.values if hasattr(case, "values") else case if len(named) > 1 else [case]
        yield {one: made[one]() for one in fixtures} | dict(zip(named, values, strict=False))


def table(name: str) -> Any:
    """A table in the page's own check."""
    found = re.search(rf"const {name} = (\{{.*?\n  \}});", CHECK, re.DOTALL)
    assert found is not None
    quoted = re.sub(r"([{,]\s*)([A-Za-z]\w*):", r'\1"\2":', found[1])
    return json.loads(re.sub(r",(\s*[}\]])", r"\1", quoted))


HARNESS = """<!doctype html><meta charset="utf-8"><pre id="out"></pre>
<script type="application/json" id="in">%s</script>
<script>%s
(async () => {
  const told = [];
  for (const { log, pin, claims } of JSON.parse(document.getElementById("in").textContent)) {
    try {
      const result = await Check.run(log, pin);
      const differ = Check.compare(result, claims ?? []).filter((one) => !one.agrees);
      told.push({ broken: null, found: result.found, differ });
    } catch (error) {
      told.push({ broken: error.code ?? String(error), found: {}, differ: [] });
    }
  }
  document.getElementById("out").textContent = JSON.stringify(told);
})();
</script>"""


def in_browser(asked: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What the page's own check says of each log."""
    harness = folder / "harness.html"
    harness.write_text(HARNESS % (json.dumps(asked).replace("<", "\\u003c"), CHECK), "utf-8")
    dom = dump(harness, folder / "profile")
    shown = re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)
    assert shown is not None
    told: list[dict[str, Any]] = json.loads(unescape(shown[1]))
    assert len(told) == len(asked)
    return told


@needs_browser
@pytest.mark.slow
def test_browser_and_verifier_say_the_same_of_every_forged_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    names: list[str] = []
    codes: list[str] = []
    for name, data, pin in vectors(monkeypatch):
        try:
            report: Report | None = verify_bundle(io.BytesIO(data), pin)
            code = ""
        except BundleBroken as broken:
            report, code = None, broken.code
        try:
            log = packed_log(Bundle(io.BytesIO(data)), report.voids if report else {})
        except (BundleBroken, ValueError):
            continue  # not even a container
        asked.append({"log": log, "pin": str(pin), "claims": report_value(report)["claims"] if report else None})
        names.append(name)
        codes.append(code)
    sound = sum(not code for code in codes)
    assert sound >= 50 and len(codes) - sound >= 4, (sound, len(codes))
    told = in_browser(asked, tmp_path)
    wrong = [
        (name, code, one)
        for name, code, one in zip(names, codes, told, strict=True)
        if bool(one["broken"]) != bool(code) or one["differ"]
    ]
    assert wrong == [], json.dumps(wrong, indent=1)[:6000]
    found = {code for one in told for codes_of in one["found"].values() for code in codes_of}
    assert {"request-not-authorised", "outcome-missing", "start-unseen", "said-twice", "voice-unknown"} <= found


def released_vectors() -> Iterator[tuple[str, bytes, Report]]:
    """Every log that the tests of E1 to E3 make, judged as they judge it: some by a fold that lets all pass."""
    heard: list[tuple[str, bytes, Report]] = []
    whole, name = Lab.bundle, ""

    def recording(self: Lab, **options: Any) -> Report:
        data = whole(self)
        report = verify_bundle(io.BytesIO(data), self.pin, **options)
        if options.get("shipped") is None:  # the page has no wheel to compare with
            heard.append((name, data, report))
        return report

    for name, test in inspect.getmembers(test_releases_judged, inspect.isfunction):
        for arguments in calls(name, test, {"gullible": str, "monkeypatch": pytest.MonkeyPatch}, bare=True):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Lab, "verify", recording)
                if "gullible" in arguments:
                    test_releases_judged.gullible.__wrapped__(patch)
                if "monkeypatch" in arguments:
                    arguments["monkeypatch"] = patch
                test(**arguments)
    yield from heard


@needs_browser
@pytest.mark.slow
def test_browser_and_verifier_say_the_same_of_every_release_and_chain(tmp_path: Path) -> None:
    asked, names = [], []
    for name, data, report in released_vectors():
        log = packed_log(Bundle(io.BytesIO(data)), report.voids)
        asked.append({"log": log, "pin": str(report.pin), "claims": report_value(report)["claims"]})
        names.append(name)
    told = in_browser(asked, tmp_path)
    ours = ("E1", "E2", "E3")
    wrong = [
        (name, one["broken"], [differ for differ in one["differ"] if differ["claim"] in ours])
        for name, one in zip(names, told, strict=True)
        if one["broken"] or any(differ["claim"] in ours for differ in one["differ"])
    ]
    assert wrong == [], json.dumps(wrong, indent=1)[:6000]
    found = {f"{claim} {code}" for one in told for claim in ours for code in one["found"][claim]}
    missing = {f"{claim} {code}" for claim in ours for code in table("SCOPE")[claim]} - found
    assert missing == set(), missing


@needs_browser
def test_other_bytes_than_the_statement_that_humans_approved_leave_nothing_that_counts(tmp_path: Path) -> None:
    lab = honest(releases=True).lab
    report = lab.verify()
    log = json.loads(zlib.decompress(b64decode(packed_log(Bundle(io.BytesIO(lab.bundle())), report.voids)), -15))
    install = sha256_hex(lab.signed()["install"])
    assert log["release"].keys() == {sha256_hex(one) for one in lab.signed().values()}
    log["release"][install]["p"] = log["release"][install]["p"].replace('"cpython"', '"pypy"')
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    forged = b64encode(squeezer.compress(json.dumps(log).encode()) + squeezer.flush()).decode()
    claims = report_value(report)["claims"]
    [told] = in_browser([{"log": forged, "pin": str(report.pin), "claims": claims}], tmp_path)
    assert told["broken"] == "artifact-differs"


def test_the_page_knows_the_voices_and_acts_that_the_core_does() -> None:
    assert {role: set(kinds) for role, kinds in table("VOICES").items()} == {
        role: set(kinds) for role, kinds in VOICES.items()
    }
    assert table("ACTS") == dict(ACTS)


def test_a_log_too_large_for_the_page_stands_there_by_its_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = honest().lab
    report = verify_bundle(io.BytesIO(lab.bundle()), lab.pin)
    whole = packed_log(Bundle(io.BytesIO(lab.bundle())), report.voids)
    monkeypatch.setattr("ironbound.evidence.report.build.MAX_LOG", len(whole) // 4)
    less = packed_log(Bundle(io.BytesIO(lab.bundle())), report.voids)
    assert len(less) < len(whole) and MAX_LOG > len(whole)
