"""E1, E2 and E3: each reason that refutes them, or leaves them open, is forged into a log of its own."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ironbound.core import replay as replaying
from ironbound.core.canonical import sha256_hex
from ironbound.core.channel import SURFACE_FILE
from ironbound.core.posture import NOT_SEEN
from ironbound.core.release import files_root
from ironbound.core.replay import Replay
from ironbound.verifier.claims import HOLDS, REFUTED, UNPROVEN
from ironbound.verifier.deployed import GRACE_MS, MIN_EVERY_MS, package_of
from ironbound.verifier.release import LIST_FILE, Shipped, shipped

from .lab import DAY, ROLES, SURFACE, Honest, Lab, config, digest_of, honest, key, status, wasm
from .released import LIST, WHEEL, files_of, statements

OURS = ("E1", "E2", "E3")
DIFFERENT = [{"path": "site/ironbound/x.pyc", "expected": digest_of("a"), "got": digest_of("b")}]
HIDDEN = [{"path": "process/environment", "expected": None, "got": NOT_SEEN}]
GONE = [{"path": "process/start", "expected": 1, "got": None}]


def released(**options: Any) -> Honest:
    return honest(releases=True, **options)


def ours(lab: Lab, **options: Any) -> dict[str, set[str]]:
    """E1 to E3 as far as they don't hold, with their codes."""
    report = lab.verify(**options)
    return {
        one.id: {reason.code for reason in one.reasons}
        for one in report.claims
        if one.id in OURS and one.status != HOLDS
    }


def signed_as(**changes: Any) -> Honest:
    """An honest history on a release that was signed otherwise."""
    return released(signs=changes)


def another_start(scene: Honest, agent: str = "second", **fields: Any) -> None:
    """One more launch, which the node says it started, whatever the log's fold makes of it."""
    scene.lab.start(scene.lab.expect(scene.lab.ask_launch(agent, scene.module, scene.cage)), **fields)


def test_an_honest_release_holds_and_says_what_was_counted() -> None:
    report = released().lab.verify()
    claims = {one.id: one for one in report.claims}
    assert [claims[one].status for one in OURS] == [HOLDS] * 3
    assert claims["E1"].counts["services that measured themselves"] == 4
    assert claims["E1"].counts["measurements by the monitor"] == 5
    assert claims["E1"].counts["tests passed"] == 1 and claims["E1"].counts["releases that ran"] == 1
    assert claims["E2"].counts["surfaces signed"] == 1
    assert any("ironbound scan WHEEL" in one for one in claims["E2"].remarks)
    assert claims["E3"].counts["launches"] == 2 == claims["E3"].counts["links consumed"]


def test_without_a_release_key_all_three_are_unproven() -> None:
    assert ours(honest().lab) == dict.fromkeys(OURS, {"no-release"})


# What was signed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tests": {"result": "FAILED", "failedTests": ["t"], "passedTests": []}}, {"E1": {"release-tests-failed"}}),
        ({"tests": {"package_sha256": digest_of("other")}}, dict.fromkeys(("E1", "E2"), {"release-contradicts"})),
        ({"install": {"package_sha256": digest_of("x")}}, dict.fromkeys(("E1", "E2"), {"release-contradicts"})),
        ({"wheels": {"provenance": "another"}}, dict.fromkeys(("E1", "E2"), {"release-contradicts"})),
        ({"surface": {"verdict": "PRESENT-ACTIVE"}}, {"E2": {"surface-open"}}),
        ({"surface": {"unlisted": 1}}, {"E2": {"surface-open"}}),
        ({"surface": {"switches": {"active": 1, "refused": 0, "explained": 0}}}, {"E2": {"surface-open"}}),
        ({"surface": {"unread": 2}}, {"E2": {"surface-not-scanned"}}),
        ({"surface": {"agent_surface_sha256": digest_of("x")}}, {"E2": {"agent-surface-differs"}}),
    ],
)
def test_a_release_that_its_key_signed_otherwise(changes: Any, expected: dict[str, set[str]]) -> None:
    assert ours(signed_as(**changes).lab) == expected


def test_a_manifest_whose_files_are_another_package() -> None:
    files = {**files_of("release", SURFACE), "site/ironbound/more.py": digest_of("more")}
    found = ours(signed_as(install={"files": files}).lab)
    assert found == {"E1": {"release-contradicts", "measurement-differs"}, "E2": {"release-contradicts"}}


def test_tests_that_were_not_run_are_a_remark() -> None:
    report = signed_as(tests={"result": "WARNED", "passedTests": []}).lab.verify()
    claim = next(one for one in report.claims if one.id == "E1")
    assert claim.status == HOLDS and any("without all of its tests" in one for one in claim.remarks)


@pytest.mark.parametrize("kind", ["provenance", "tests", "surface", "install"])
def test_a_statement_by_another_key(kind: str) -> None:
    scene = released()
    lab = scene.lab
    theirs = statements("next", key("stranger"), SURFACE)[kind]
    lab.expect(lab.approve_release("next", **{kind: theirs}))
    manifest = {"manifest_sha256": sha256_hex(theirs)} if kind == "install" else {}
    for role in ROLES:
        lab.service(role, "next", sha256_hex(SURFACE), measured=lab.found("next", **manifest))
    for role in (*ROLES, "ledger"):
        lab.measure(role, "next", **manifest)
    another_start(scene)
    assert ours(lab) == {"E2" if kind == "surface" else "E1": {"release-not-signed"}, "E3": {"release-not-signed"}}


def test_a_statement_in_another_s_place() -> None:
    scene = released()
    lab = scene.lab
    lab.expect(lab.approve_release("next", tests=lab.signed("next")["provenance"]))
    lab._approved.add("next")
    lab.announce("next")
    another_start(scene)
    assert ours(lab) == {"E1": {"release-not-signed"}, "E3": {"release-not-signed"}}


@pytest.mark.parametrize(("kind", "claim"), [("provenance", "E1"), ("surface", "E2")])
def test_a_statement_that_the_bundle_lacks(kind: str, claim: str) -> None:
    scene = released()
    del scene.lab.artifacts[sha256_hex(scene.lab.signed()[kind])]
    assert ours(scene.lab) == {claim: {"artifact-missing"}, "E3": {"artifact-missing"}}


def test_a_gateway_that_names_no_surface() -> None:
    scene = released()
    scene.lab.service("gateway")
    scene.lab.measure("gateway")
    assert ours(scene.lab) == {"E2": {"surface-not-announced"}}


# What was measured


@pytest.mark.parametrize("role", [*ROLES, "ledger"])
def test_a_difference_that_the_monitor_found_refutes_with_its_path(role: str) -> None:
    scene = released()
    scene.lab.measure(role, differences=DIFFERENT)
    report = scene.lab.verify()
    claim = next(one for one in report.claims if one.id == "E1")
    assert claim.status == REFUTED and [one.code for one in claim.reasons] == ["host-differs"]
    assert role in claim.reasons[0].text and "site/ironbound/x.pyc" in claim.reasons[0].text


def test_what_the_monitor_could_not_see_is_open_and_an_end_is_neither() -> None:
    scene = released()
    scene.lab.measure("gateway", differences=GONE)
    assert ours(scene.lab) == {}
    scene.lab.measure("gateway", differences=HIDDEN)
    assert ours(scene.lab) == {"E1": {"host-not-visible"}}


def test_a_measurement_that_lies_about_what_it_found() -> None:
    for wrong in ({"files": 6}, {"root": digest_of("other files")}):
        scene = released()
        scene.lab.measure("node", **wrong)
        assert ours(scene.lab) == {"E1": {"measurement-differs"}}
        assert status(scene.lab.verify(), "E1") == REFUTED


def test_a_service_that_said_a_difference_itself_or_did_not_look() -> None:
    scene = released()
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), measured=scene.lab.found(differences=DIFFERENT))
    scene.lab.measure("gateway")
    assert "host-differs" in ours(scene.lab)["E1"]
    scene = released()
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), measured=None)
    scene.lab.measure("gateway")
    assert ours(scene.lab)["E1"] == {"host-not-measured"}


def test_a_manifest_that_no_approved_release_names() -> None:
    scene = released()
    scene.lab.measure("ledger", manifest_sha256=digest_of("a manifest of mine"))
    assert ours(scene.lab) == {"E1": {"release-unknown"}}


def _other_host(lab: Lab, **files: str) -> dict[str, Any]:
    """What is found where another install manifest of the same release fits, which the quorum approved as well."""
    listed = files_of("release", SURFACE) | {path: digest_of(text) for path, text in files.items()}
    signed = statements("release", lab.release_key, SURFACE, install={"files": listed, "version": "0.1.0+again"})
    lab.expect(lab.approve_release("release", install=signed["install"]))
    return lab.found(manifest_sha256=sha256_hex(signed["install"]), root=files_root(listed))


@pytest.mark.parametrize("role", [*ROLES, "ledger"])
def test_a_service_that_names_another_installation_than_the_monitor_found(role: str) -> None:
    """Both are signed and approved; which of them runs is not a service's own word."""
    scene = released()
    found = _other_host(scene.lab, python="an interpreter from before")
    scene.lab.measure(role, **found)
    another_start(scene)
    assert ours(scene.lab) == ({} if role == "ledger" else {"E1": {"host-differs"}, "E3": {"host-differs"}})


def test_the_same_files_signed_once_more_are_the_same_installation() -> None:
    scene = released()
    scene.lab.measure("node", **_other_host(scene.lab))
    another_start(scene)
    assert ours(scene.lab) == {}


def test_a_release_that_nobody_approved() -> None:
    scene = released()
    scene.lab.service("controller", "next")
    scene.lab.measure("controller", "next")
    assert ours(scene.lab) == {"E1": {"release-unknown"}, "E2": {"release-unknown"}}
    another_start(scene)
    assert ours(scene.lab)["E3"] == {"release-unapproved"}


def test_another_process_than_the_one_that_said_it_started() -> None:
    scene = released()
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), pid=900)
    scene.lab.measure("gateway")
    scene.act()
    scene.lab.now += GRACE_MS + 1
    scene.act()
    assert ours(scene.lab)["E1"] == {"host-not-measured"}
    assert status(scene.lab.verify(), "E1") == UNPROVEN


def test_a_service_that_spoke_and_ended_unmeasured() -> None:
    scene = released()
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), pid=900)
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), pid=901)
    scene.lab.measure("gateway", pid=901)
    assert ours(scene.lab) == {}  # what said nothing did nothing
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), pid=902)
    scene.act()
    scene.lab.service("gateway", surface=sha256_hex(SURFACE), pid=903)
    scene.lab.measure("gateway", pid=903)
    assert ours(scene.lab) == {"E1": {"host-not-measured"}}


@pytest.mark.parametrize("interval", [1_000, 3_600_000])
@pytest.mark.parametrize("silent", [None, "gateway", "ledger"])
def test_each_service_is_measured_again_in_each_interval(interval: int, silent: str | None) -> None:
    scene = released(canary_interval_ms=interval)
    every = max(interval, MIN_EVERY_MS)
    for _ in range(3):
        scene.lab.now += every
        for role in (*ROLES, "ledger"):
            if role != silent:
                scene.lab.measure(role)
        scene.act()
    assert ours(scene.lab) == ({} if silent is None else {"E1": {"host-not-measured"}})


def test_a_time_in_which_nothing_ran_needs_no_measurement() -> None:
    scene = released()
    scene.lab.now += 3 * DAY
    for role in (*ROLES, "ledger"):
        scene.lab.measure(role)
    another_start(scene)
    assert ours(scene.lab) == {}


def test_a_service_that_never_said_anything_is_open() -> None:
    lab = Lab(releases=True)
    lab.service("node")
    assert "service-not-announced" in ours(lab)["E1"]


# The chain


def test_a_start_without_effect_breaks_the_chain() -> None:
    scene = released()
    scene.lab.measure("monitor", differences=DIFFERENT)
    another_start(scene)
    assert ours(scene.lab) == {"E1": {"host-differs"}, "E3": {"start-void"}}


@pytest.fixture
def gullible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log's fold lets everything start, of whatever release and on whatever host."""
    monkeypatch.setattr(Replay, "host_refused", lambda self: None)
    apply = replaying.Authority.apply

    def any_release(self: Any, rule: str, message: Mapping[str, Any]) -> Any:
        return apply(self, rule, {**message, "release": ""} if rule == "start" else message)

    monkeypatch.setattr(replaying.Authority, "apply", any_release)


def _other_settings(scene: Honest) -> None:
    scene.lab.service("controller", settings_sha256=digest_of("others"))
    scene.lab.measure("controller")


def _all_other_settings(scene: Honest) -> None:
    for role in ROLES:
        surface = sha256_hex(SURFACE)
        scene.lab.service(role, surface=surface, settings_sha256=digest_of("others"))
        scene.lab.measure(role)


BREAKS: dict[str, tuple[Callable[[Honest], Any], str]] = {
    "host differs": (lambda scene: scene.lab.measure("ledger", differences=DIFFERENT), "host-differs"),
    "host hidden": (lambda scene: scene.lab.measure("node", differences=HIDDEN), "host-not-visible"),
    "host gone": (lambda scene: scene.lab.measure("node", differences=GONE), "host-not-visible"),
    "host unmeasured": (lambda scene: scene.lab.service("monitor"), "host-not-measured"),
    "another process": (lambda scene: scene.lab.measure("gateway", pid=7), "host-not-measured"),
    "other settings": (_other_settings, "settings-differ"),
    "settings unapproved": (_all_other_settings, "release-unapproved"),
    "release unapproved": (lambda scene: scene.lab.service("node", "next"), "release-unapproved"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_link_is_found_even_if_the_fold_let_it_pass(name: str, gullible: None) -> None:
    scene = released()
    another_start(scene, "before")
    assert ours(scene.lab) == {}
    breaks, code = BREAKS[name]
    breaks(scene)
    another_start(scene)
    assert scene.lab.said[-1].void is None
    assert code in ours(scene.lab)["E3"]


def test_a_start_on_services_that_never_said_what_they_run(gullible: None) -> None:
    lab = Lab(releases=True)
    module, cage = lab.approve_module(wasm()), lab.approve_profile(config())
    lab.expect(lab.start(lab.expect(lab.ask_launch("clerk", module, cage))))
    assert ours(lab)["E3"] == {"service-not-announced", "host-not-measured"}


def test_what_a_stolen_key_approved_carries_no_launch_from_then_on(gullible: None, monkeypatch: Any) -> None:
    scene = released()
    lab = scene.lab
    lab.step_ms = 1
    since = next(iter(lab.replay.books.releases.values())).index
    launch = lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    lab.expect(lab.flag("bob", since, "cy"))
    lab.start(launch)
    found = ours(lab)["E3"]
    assert "start-void" in found  # the launch itself was stopped
    monkeypatch.setattr(replaying.Authority, "apply", lambda self, rule, message: None)
    codes = ours(lab)["E3"]
    assert {"release-unapproved", "module-unapproved", "profile-unapproved", "launch-not-asked"} <= codes


def test_too_few_humans_are_found_even_if_the_fold_let_them_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying.Authority, "apply", lambda self, rule, message: None)
    lab = Lab(releases=True)
    lab.ask = lambda kind, **fields: lab.admit(lab.request(kind, **fields), [])  # type: ignore[method-assign]
    lab.announce()
    module, cage = lab.approve_module(wasm()), lab.approve_profile(config())
    lab.expect(lab.start(lab.expect(lab.ask_launch("clerk", module, cage))))
    assert ours(lab)["E3"] == {"module-unapproved", "profile-unapproved", "launch-not-asked"}


def test_other_bytes_than_approved_and_another_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying.Authority, "apply", lambda self, rule, message: None)
    monkeypatch.setattr(replaying, "require_seen", lambda said, monitor: None)
    scene = released()
    lab = scene.lab
    launch = lab.expect(lab.ask_launch("second", scene.module, scene.cage))
    others = {
        "module_sha256": lab.approve_module(wasm("other")),
        "config_sha256": lab.approve_profile(config(max_fuel=7)),
    }
    lab.expect(lab.start(launch, **others, seen={"pid": 7, "differences": DIFFERENT}))
    assert ours(lab)["E3"] == {
        "module-unapproved", "consumed-config-differs", "observation-differs", "observed-posture-differs"
    }  # fmt: skip


# With the wheel


def _given(**changes: Any) -> Shipped:
    files = files_of("release", SURFACE)
    base = {
        "release": package_of(files), "surface": sha256_hex(SURFACE), "listed": sha256_hex(LIST),
        "wheel": digest_of("wheel of release"),
    }  # fmt: skip
    return Shipped(**(base | changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"wheel": None}, None),
        ({"wheel": digest_of("other")}, "release-differs"),
        ({"release": digest_of("other")}, "release-differs"),
        ({"listed": digest_of("other")}, "surface-list-differs"),
        ({"listed": None}, "surface-list-differs"),
        ({"surface": digest_of("other")}, "agent-surface-differs"),
    ],
)
def test_a_given_release_is_compared_with_what_was_signed(changes: dict[str, Any], code: str | None) -> None:
    found = ours(released().lab, shipped=_given(**changes))
    assert found == ({} if code is None else {"E2": {code}})


def test_what_a_wheel_says_of_itself(tmp_path: Path) -> None:
    package = {"__init__.py": b"", SURFACE_FILE: SURFACE, LIST_FILE: LIST}
    path = tmp_path / WHEEL
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in package.items():
            wheel.writestr(f"ironbound/{name}", data)
    digests = {f"site/ironbound/{name}": sha256_hex(data) for name, data in package.items()}
    given = Shipped(package_of(digests), sha256_hex(SURFACE), sha256_hex(LIST), sha256_hex(path.read_bytes()))
    assert shipped(path) == given
