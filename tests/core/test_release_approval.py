"""What a node may run: a release that a quorum approved with the services' settings, on a host that was measured."""

from __future__ import annotations

import pytest

from ironbound.core.books import Host
from ironbound.core.canonical import FormatError
from ironbound.core.keys import SignatureInvalid
from ironbound.core.trust import parse_trust_root
from verifier.lab import ROLES, Honest, Lab, digest_of, honest, key

DIFFERENT = [{"path": "site/ironbound/x.py", "expected": "a", "got": "b"}]


def released() -> Honest:
    return honest(releases=True)


def _start(scene: Honest, agent: str) -> str | None:
    launch = scene.lab.expect(scene.lab.ask_launch(agent, scene.module, scene.cage))
    return scene.lab.start(launch).void


def test_an_approved_release_on_a_measured_host_starts_agents() -> None:
    assert _start(released(), "second") is None


@pytest.mark.parametrize(
    "other",
    [
        {"release_sha256": digest_of("another release")},
        {"settings_sha256": digest_of("another configuration")},
    ],
)
def test_another_release_or_configuration_than_the_approved_one_starts_nothing(other: dict[str, str]) -> None:
    scene = released()
    scene.lab.service("node", **other)
    scene.lab.measure("node")
    assert _start(scene, "second") == "release-not-approved"
    scene.lab.service("node")
    scene.lab.measure("node")
    assert _start(scene, "third") is None


def test_an_installation_of_another_manifest_starts_nothing() -> None:
    scene = released()
    scene.lab.service("node", measured=scene.lab.found(manifest_sha256=digest_of("mine")))
    scene.lab.measure("node")
    assert _start(scene, "second") == "release-not-approved"


@pytest.mark.parametrize("role", [*ROLES, "ledger"])
def test_nothing_starts_while_the_monitor_finds_a_difference_in_any_service(role: str) -> None:
    scene = released()
    scene.lab.expect(scene.lab.measure(role, differences=DIFFERENT))
    assert _start(scene, "second") == "host-differs"
    scene.lab.expect(scene.lab.measure(role))
    assert _start(scene, "third") is None


@pytest.mark.parametrize("role", ROLES)
def test_a_service_that_started_anew_is_measured_anew(role: str) -> None:
    scene = released()
    scene.lab.service(role)
    assert _start(scene, "second") == "host-not-measured"
    scene.lab.measure(role)
    assert _start(scene, "third") is None


def test_the_books_name_the_process_that_was_measured_last() -> None:
    lab = released().lab
    entry = lab.measure("gateway", pid=777, pid_start=42, differences=DIFFERENT)
    assert lab.replay.books.hosts["gateway"] == Host(lab.expect(entry), pid=777, pid_start=42, differences=1)


@pytest.mark.parametrize("measured", [None, "differing"])
def test_a_service_s_own_word_about_a_difference_is_no_start(measured: str | None) -> None:
    scene = released()
    found = None if measured is None else scene.lab.found(differences=DIFFERENT)
    scene.lab.service("gateway", measured=found)
    assert scene.lab.said[-1].void == "host-differs"


def test_one_human_approves_no_release() -> None:
    scene = released()
    lab = scene.lab
    body = {"release_sha256": digest_of("x"), "settings_sha256": digest_of("y"),
            "statements": dict.fromkeys(("provenance", "tests", "surface", "install"), digest_of("z"))}  # fmt: skip
    assert lab.admit(lab.request("release-approval", body=body), []).void == "quorum-not-met"


def test_an_approval_that_rests_on_a_stolen_key_is_withdrawn_and_stops_what_runs_on_it() -> None:
    scene = released()
    lab = scene.lab
    since = next(iter(lab.replay.books.releases.values())).index
    assert not lab.replay.authority.read("launch_stopped", scene.launch)
    lab.expect(lab.flag("bob", since, "cy"))
    assert not any(lab.replay.authority.read("release", one) for one in lab.replay.books.releases)
    assert lab.replay.authority.read("launch_stopped", scene.launch)


def test_a_stolen_approval_of_a_release_that_does_not_run_stops_nothing() -> None:
    scene = released()
    lab, read = scene.lab, scene.lab.replay.authority.read
    (runs,) = lab.replay.books.releases
    since = lab.expect(lab.approve_release("next"))
    (other,) = lab.replay.books.releases.keys() - {runs}
    assert read("release", runs) and read("release", other)
    lab.expect(lab.flag("bob", since, "cy"))
    assert read("release", runs) and not read("release", other)
    assert not read("launch_stopped", scene.launch)


def test_where_the_trust_root_names_no_release_key_any_release_runs() -> None:
    scene = honest()
    scene.lab.service("node", measured=None, release_sha256=digest_of("whatever"))
    assert _start(scene, "second") is None


def test_the_release_key_is_nobody_else_s() -> None:
    body_of = Lab(releases=True)
    parse_trust_root(body_of.entries[0])
    for owner in ("node", "ada", "log", "witness"):
        with pytest.raises((FormatError, SignatureInvalid)) as refused:
            Lab(releases=True, release_key=key(owner))
        assert getattr(refused.value, "code", "") == "trust-root-roster"
    lab = Lab(releases=True)
    others = [lab.person(name) for name in ("ada", "bob")]
    taken = lab.next_root(operators=[*others, lab.person("dora", lab.release_key)])
    assert lab.reform(taken).void == "trust-root-roster"
