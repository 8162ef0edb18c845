"""Claim E3: the chain of signatures from the release to what a sandbox consumed, link by link, for every launch.

Decides from what humans gave, what services and monitor said, and what the release key signed, each as it stood when
the launch started. The replay's verdict is not asked: it let the start have its effect, and here is looked why.

Rule 1: what humans gave counts if enough of them gave it, in an entry before the start, and it was not withdrawn by
        then because it rested on a compromised key.
Rule 2: what a service is, is what it said at its last start and what the monitor last said of that very process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ironbound.core.books import approved_as
from ironbound.core.canonical import Digest

from .claims import Case, Claim
from .deployed import SERVICES, Finding, Releases, is_gone, keyless, names_another, unseen
from .history import Given, History, Life, Said


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a launch's chain: what it is, the entry that says it, in words, and what is broken of it."""

    name: str
    index: int | None
    text: str
    broken: tuple[Finding, ...] = ()


def claim_e3(history: History, releases: Releases) -> Claim:
    """One unbroken chain of signatures from the release to the launch."""
    case = Case("E3")
    if releases.key is None:
        return keyless(case)
    for index, start in history.starts.items():
        case.count("launches")
        for link in links(history, releases, start):
            case.count(f"links {link.name}")
            for code, text in link.broken:
                case.found(code, index, f"agent {start.says['agent']}: {text}"[:300])
    for start in history.void.get("started", ()):
        if start.void == "launch-stopped" and start.says["launch"] in history.refused_launches:
            case.count("starts that a stop overtook")
        else:
            case.found("start-void", start.index, f"agent {start.says['agent']}: {start.void}")
    case.population("launches")
    return case.close()


def links(history: History, releases: Releases, start: Said) -> Iterator[Link]:
    """The chain of a start that had its effect, from the release on."""
    yield from _release(history, releases, start)
    yield _configuration(history, start)
    yield _host(history, start)
    launch = history.launch(start.says["launch"])
    yield _approved(history, start, "module", launch.module)
    yield _approved(history, start, "profile", launch.config)
    yield asked_for(history, launch.index, start.index)
    yield _look(history, start)
    yield _consumed(history, start)


def _who(given: Given) -> str:
    asked, *agreed = given.humans
    return f"asked by {asked}" + (f", approved by {', '.join(agreed)}" if agreed else "")


def _short(digest: str) -> str:
    return digest[:16] or "none"


def _release(history: History, releases: Releases, start: Said) -> Iterator[Link]:
    node = history.life_at("node", start.index)
    if node is None:
        yield Link("release", None, "the node never said what it runs", (("service-not-announced", "the node"),))
        return
    release, settings, manifest = node.build
    given = history.given_at(approved_as(release, settings, manifest), start.index)
    if releases.key is None:
        broken = (("no-release", "the trust root names no release key"),)
        yield Link("release", node.started.index, f"the node runs {_short(release)}", broken)
        return
    if given is None:
        text = f"the node runs {_short(release)} with the configuration {_short(settings)}"
        yield Link("release", node.started.index, text, (("release-unapproved", text),))
        return
    known = releases.read(given)
    wrong = tuple(known.wrong.values())
    wheel = next((name for one in known.signed.values() for name in one.subjects if name.endswith(".whl")), "no wheel")
    signer = releases.key.keyid[:16]
    text = f"{wheel}, package {_short(release)}, {len(known.signed)} statements signed by the release key {signer}"
    yield Link("signed release", given.index, text, wrong)
    yield Link("release approved", given.index, f"with configuration and manifest {_short(manifest)}, {_who(given)}")


def _configuration(history: History, start: Said) -> Link:
    """Every service runs with the node's configuration, and that was approved with what it runs."""
    node = history.life_at("node", start.index)
    settings = "" if node is None else node.build[1]
    broken: list[Finding] = []
    for role in SERVICES:
        life = history.life_at(role, start.index)
        if life is None:
            broken.append(("service-not-announced", f"the {role}"))
            continue
        if life.build[1] != settings:
            broken.append(("settings-differ", f"the {role} runs with {_short(life.build[1])}"))
        if role != "node" and history.given_at(approved_as(*life.build), start.index) is None:
            broken.append(("release-unapproved", f"the {role} runs {_short(life.build[0])}"))
    text = f"{_short(settings)}, said alike by {', '.join(SERVICES)}" if not broken else _short(settings)
    return Link("services' configuration", None if node is None else node.started.index, text, tuple(broken))


def _host(history: History, start: Said) -> Link:
    """The monitor's last word about each service: this very process, and nothing differs."""
    broken: list[Finding] = []
    last = -1
    for role in (*SERVICES, "ledger"):
        said, life = history.measured_at(role, start.index), history.life_at(role, start.index)
        if said is None or (life is not None and not _same(life, said)):
            broken.append(("host-not-measured", f"the monitor had not measured the {role} by then"))
            continue
        last = max(last, said.index)
        measured = said.says["measured"]
        if measured["differences"]:
            hidden = is_gone(measured) or unseen(measured)
            code = "host-not-visible" if hidden else "host-differs"
            broken.append((code, f"the {role}: {measured['differences'][0]['path']}, entry {said.index}"))
        elif names_another(life, said):
            broken.append(("host-differs", f"the {role} names another installation than was found, entry {said.index}"))
    text = f"{len(SERVICES) + 1} services measured, {len(broken)} of them not as signed"
    return Link("measured hosts", last if last >= 0 else None, text, tuple(broken))


def _same(life: Life, said: Said) -> bool:
    """Whether the monitor's word is about this process, after it had started."""
    says = life.started.says
    process = (said.says["pid"], said.says["pid_start"])
    return said.index > life.started.index and process == (says["pid"], says["pid_start"])


def _approved(history: History, start: Said, what: str, digest: Digest) -> Link:
    given = history.given_at(digest, start.index)
    if given is None:
        text = f"{what} {_short(digest)}"
        return Link(what, None, text, ((f"{what}-unapproved", text),))
    body = given.asked["body"]
    name = body.get("profile") or body["kind"]
    return Link(what, given.index, f"{_short(digest)} ({name}), {_who(given)}")


def asked_for(history: History, index: int, before: int) -> Link:
    """Who asked for a launch: humans for this agent, module and profile, or the monitor, that it be refused."""
    launch = history.launch(index)
    asks = (launch.agent, launch.module, launch.config)
    if launch.nonce is not None:
        said = history.challenges.get(index)
        asked = None if said is None else (said.says["module_sha256"], said.says["config_sha256"])
        broken = () if asked == asks[1:] else (("launch-not-asked", "by no challenge of the monitor"),)
        return Link("launch", index, "asked by the monitor, to be refused", broken)
    given = history.given_at(index, before)
    if given is None:
        return Link("launch", index, "asked by too few", (("launch-not-asked", f"entry {index} gives none"),))
    says = given.asked
    if (says["agent"], says["module_sha256"], says["config_sha256"]) != asks:
        return Link("launch", index, _who(given), (("launch-not-asked", "for another agent, module or profile"),))
    return Link("launch", index, _who(given))


def _look(history: History, start: Said) -> Link:
    """The monitor saw this sandbox held, and nothing about it differs."""
    look = history.observed[start.index][0]
    broken: list[Finding] = []
    if (look.says["agent"], look.says["pid"]) != (start.says["agent"], start.says["pid"]):
        broken.append(("observation-differs", f"observed {look.says['agent']} as process {look.says['pid']}"))
    if look.says["differences"]:
        broken.append(("observed-posture-differs", f"{look.says['differences'][0]['path']}"))
    return Link("monitor's look", look.index, f"held as process {look.says['pid']}", tuple(broken))


def _consumed(history: History, start: Said) -> Link:
    """What the sandbox took in is what was approved."""
    launch = history.launch(start.says["launch"])
    module, config = start.says["module_sha256"], start.says["config_sha256"]
    broken: list[Finding] = []
    if config != launch.config:
        broken.append(("consumed-config-differs", f"consumed {_short(config)}"))
    if module != launch.module:
        broken.append(("module-unapproved", f"consumed {_short(module)}"))
    text = f"module {_short(module)}, configuration {_short(config)}"
    return Link("consumed", start.index, text, tuple(broken))
