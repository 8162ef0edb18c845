"""Claims E1 and E2: what is deployed is a release that its key signed, and what that release shows to the outside.

Decides from what services and monitor say of the installed files, and from the four statements of each approved
release, read again with the trust root's release key. Whether the files are those on the disk is the measuring
services' word (`wire.measure`, `monitor.hosts`); here it is compared with what was signed.

Rule 1: a service's word about itself never counts alone: the monitor, another process and user, measured that very
        process too, and found the installation that it names. The ledger says nothing; for it, the monitor's word is
        all.
Rule 2: while a service lives, each entry of the log lies at most one interval of the canaries (`MIN_EVERY_MS` at
        least) after a measurement of it without differences, or at most `GRACE_MS` before one. A service that said
        nothing after its start did nothing.
Rule 3: what a release's statements say of each other is recomputed: one wheel, and the package's digest from the
        manifest's own files.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError
from ironbound.core.keys import SignatureInvalid
from ironbound.core.posture import NOT_SEEN
from ironbound.core.release import Signed, files_root, read_signed
from ironbound.core.statement import RELEASE

from .claims import Case, Claim
from .history import Given, History, Life, Said
from .release import PACKAGE, Shipped, counts
from .times import utc

#: However short the canaries' interval is, nobody needs to measure more often than this.
MIN_EVERY_MS: Final = 60_000
#: How long after a service's start, or after a time in which nothing ran, it may stay unmeasured.
GRACE_MS: Final = 120_000
ACTIVE: Final = "PRESENT-ACTIVE"
SERVICES: Final = ("controller", "node", "gateway", "monitor")
_PLACE: Final = f"site/{PACKAGE}/"

#: The bytes with a digest, or None if the bundle lacks them.
Artifact = Callable[[str], bytes | None]
#: A reason code and a case of it.
Finding = tuple[str, str]


@dataclass(slots=True)
class Signatures:
    """A release that a quorum approved: what its key signed of it, by kind, and what is wrong with that."""

    given: Given
    signed: dict[str, Signed] = field(default_factory=dict)
    wrong: dict[str, Finding] = field(default_factory=dict)

    @property
    def build(self) -> tuple[str, str]:
        """The release and the install manifest that were approved."""
        body = self.given.asked["body"]
        return body["release_sha256"], body["statements"]["install"]


class Releases:
    """The approved releases of a log, each read once."""

    def __init__(self, history: History, artifact: Artifact) -> None:
        self.key = history.replay.trust.release
        self._artifact = artifact
        self._read: dict[int, Signatures] = {}
        self._given: dict[tuple[str, str], list[Given]] = {}
        for gifts in history.given.values():
            for one in gifts:
                if one.kind == "release-approval":
                    body = one.asked["body"]
                    build = (body["release_sha256"], body["statements"]["install"])
                    self._given.setdefault(build, []).append(one)

    def of(self, release: str, manifest: str) -> list[Signatures]:
        """What was approved of this release with this manifest; empty if nothing was."""
        return [self.read(one) for one in self._given.get((release, manifest), ())]

    def by_manifest(self, manifest: str) -> list[Signatures]:
        """What was approved with this manifest."""
        return [self.read(one) for build, gifts in self._given.items() if build[1] == manifest for one in gifts]

    def read(self, given: Given) -> Signatures:
        """The statements of one approval, each checked alone."""
        if given.index not in self._read:
            self._read[given.index] = found = Signatures(given)
            for kind in RELEASE:
                self._statement(found, kind, given.asked["body"]["statements"][kind])
        return self._read[given.index]

    def _statement(self, found: Signatures, kind: str, sha256: str) -> None:
        data = self._artifact(sha256)
        if data is None:
            found.wrong[kind] = ("artifact-missing", f"the release's statement {kind}, {sha256}")
            return
        try:
            if self.key is None:
                raise FormatError("no-release", "the trust root names no release key")
            signed = read_signed(data, self.key)
            if signed.kind != kind:
                raise FormatError("release-kind", f"it is the statement {signed.kind}")
        except (FormatError, SignatureInvalid) as error:
            found.wrong[kind] = ("release-not-signed", f"{kind}, {sha256}: {error}"[:300])
            return
        found.signed[kind] = signed


def contradictions(release: Signatures) -> Iterator[str]:
    """Rule 3: where the statements of a release are not about one and the same."""
    wheels = {signed.wheel for signed in release.signed.values()}
    if len(wheels) > 1:
        yield f"the statements are about {len(wheels)} wheels"
    package = release.build[0]
    install = release.signed.get("install")
    if install is not None:
        if install.predicate["package_sha256"] != package:
            yield f"approved as {package[:16]}, the manifest is of {install.predicate['package_sha256'][:16]}"
        own = package_of(install.predicate["files"])
        if own != package:
            yield f"approved as {package[:16]}, the manifest's files are {own[:16]}"
    tests = release.signed.get("tests")
    if tests is not None and tests.predicate.get("package_sha256", package) != package:
        yield "what was tested is another package"


def package_of(files: Mapping[str, Digest]) -> Digest:
    """The digest of the installed package as `release.release_digest` has it, from a manifest."""
    package = {path.removeprefix(_PLACE): sha256 for path, sha256 in files.items() if path.startswith(_PLACE)}
    return files_root({path: sha256 for path, sha256 in package.items() if counts(path)})


def claim_e1(history: History, releases: Releases) -> Claim:
    """The deployed files are those of a signed release with provenance."""
    case = Case("E1")
    if releases.key is None:
        return keyless(case)
    used: dict[tuple[str, str], int] = {}
    for role in SERVICES:
        for life in history.lives.get(role, ()):
            _check_life(case, history, releases, role, life, used)
        if not history.lives.get(role):
            case.found("service-not-announced", None, f"the {role}")
    _check_ledger(case, history)
    for said in (one for looks in history.measured.values() for one in looks):
        _check_look(case, history, releases, said, used)
    for (release, manifest), index in sorted(used.items(), key=lambda item: item[1]):
        known = releases.of(release, manifest)
        case.count("releases that ran")
        if not known:
            case.found("release-unknown", index, f"release {release[:16]} with the manifest {manifest[:16]}")
        for one in known:
            _check_statements(case, one)
    case.population("services that measured themselves")
    return case.close()


def keyless(case: Case) -> Claim:
    """A claim about releases, where the trust root names no key of theirs."""
    case.found("no-release", 0, "`ironbound init --release` names a release and its key")
    return case.close()


def _check_life(
    case: Case, history: History, releases: Releases, role: str, life: Life, used: dict[tuple[str, str], int]
) -> None:
    says, index = life.started.says, life.started.index
    case.count("services started")
    measured = says["measured"]
    if measured is None:
        case.found("host-not-measured", index, f"the {role} did not measure itself")
        return
    case.count("services that measured themselves")
    used.setdefault((says["release_sha256"], measured["manifest_sha256"]), index)
    _check_found(case, releases, index, f"the {role}, by itself", measured)
    process = (says["pid"], says["pid_start"])
    _check_watched(case, history, role, (index, life.last), process)


def _check_ledger(case: Case, history: History) -> None:
    """The ledger says nothing of itself: from each start of the monitor on it is measured."""
    size = history.replay.size
    begins = [life.started.index for life in history.lives.get("monitor", ())]
    for begin, end in pairwise([*begins, size]):
        _check_watched(case, history, "ledger", (begin, end - 1), None)


def _check_watched(
    case: Case, history: History, role: str, life: tuple[int, int], process: tuple[int, int] | None
) -> None:
    """Rule 2, for the entries from the first to the last of a life; of any process if None is given."""
    begin, last = life
    all_looks = history.measured.get(role, [])
    at = bisect_left(all_looks, begin, key=lambda one: one.index)
    until = history.lives.get(role, [])
    after = next((one.started.index for one in until if one.started.index > begin), history.replay.size)
    looks = [
        one
        for one in all_looks[at : bisect_left(all_looks, after if process else last + 1, key=lambda one: one.index)]
        if not one.says["measured"]["differences"] and process in (None, (one.says["pid"], one.says["pid_start"]))
    ]
    text = f"the {role}" + (f", process {process[0]}" if process else "")
    clocks = history.clocks
    begin_ms, end_ms = clocks[begin], clocks[last]
    if not looks:
        ended = after < history.replay.size and last > begin
        if ended or end_ms - begin_ms > GRACE_MS:
            case.found("host-not-measured", begin, f"{text}, was never found by the monitor as it has to be")
        return
    every = max(history.replay.trust.canary_interval_ms, MIN_EVERY_MS)
    times = [one for one in (clocks[look.index] for look in looks) if one <= end_ms]
    allowed = [begin_ms, *(one + every + 1 for one in times)]
    for first_ms, until_ms in zip(allowed, [*times, end_ms], strict=True):
        _check_gap(case, history, text, first_ms, until_ms - GRACE_MS)


def _check_gap(case: Case, history: History, text: str, first_ms: int, last_ms: int) -> None:
    """Nothing was said from first to last, or the service had to be measured by then."""
    at = bisect_left(history.clocks, first_ms)
    if at < bisect_right(history.clocks, last_ms):
        shown = f"{text}, {utc(first_ms)} to {utc(last_ms)}, {history.entries_in(first_ms, last_ms + 1)}"
        case.found("host-not-measured", at, shown)


def is_gone(measured: Mapping[str, Any]) -> bool:
    """True if all that was found is that the process is there no more."""
    return bool(measured["differences"]) and {one["path"] for one in measured["differences"]} == {"process/start"}


def unseen(measured: Mapping[str, Any]) -> bool:
    """True if whatever differs is only what could not be looked at."""
    return all(str(one["got"]).startswith(NOT_SEEN) for one in measured["differences"])


def names_another(life: Life | None, said: Said) -> bool:
    """Whether a process said that it is of another installation than the one that the monitor found it to be of."""
    own = None if life is None else life.started.says["measured"]
    if life is None or own is None or any(life.started.says[one] != said.says[one] for one in ("pid", "pid_start")):
        return False
    found = said.says["measured"]  # the same files can have been signed twice
    return all(own[one] != found[one] for one in ("manifest_sha256", "root"))


def _check_look(case: Case, history: History, releases: Releases, said: Said, used: dict[tuple[str, str], int]) -> None:
    measured = said.says["measured"]
    if is_gone(measured):
        case.count("services that ended without another start within the monitor's patience")
        return
    case.count("measurements by the monitor")
    _check_found(case, releases, said.index, f"the {said.says['role']}", measured)
    role, manifest = said.says["role"], measured["manifest_sha256"]
    if not measured["differences"] and names_another(history.life_at(role, said.index), said):
        text = f"the {role} names another installation than the monitor found, by the manifest {manifest[:16]}"
        case.found("host-differs", said.index, text)
    if not releases.by_manifest(manifest) and all(one[1] != manifest for one in used):
        case.found("release-unknown", said.index, f"the monitor compared with the manifest {manifest[:16]}")


def _check_found(case: Case, releases: Releases, index: int, whose: str, measured: Mapping[str, Any]) -> None:
    """What was found of an installation and a process is what the manifest says."""
    if measured["differences"]:
        shown = [one["path"] for one in measured["differences"]]
        code = "host-not-visible" if unseen(measured) else "host-differs"
        case.found(code, index, f"{whose}: {', '.join(shown[:3])}{', …' if len(shown) > 3 else ''}"[:300])
        return
    for known in releases.by_manifest(measured["manifest_sha256"]):
        install = known.signed.get("install")
        if install is None:
            continue
        files = install.predicate["files"]
        if (measured["files"], measured["root"]) != (len(files), files_root(files)):
            text = f"{whose}: no difference, yet {measured['files']} files are not the manifest's {len(files)}"
            case.found("measurement-differs", index, text)


def _check_statements(case: Case, release: Signatures) -> None:
    index = release.given.index
    for kind, (code, text) in release.wrong.items():
        if kind != "surface":
            case.found(code, index, text)
    for text in contradictions(release):
        case.found("release-contradicts", index, text)
    install, tests = release.signed.get("install"), release.signed.get("tests")
    if install is not None:
        case.counts["files of an installation"] = len(install.predicate["files"])
    if tests is not None:
        case.counts["tests passed"] = len(tests.predicate["passedTests"])
        if tests.predicate["result"] == "FAILED":
            case.found("release-tests-failed", index, ", ".join(map(str, tests.predicate["failedTests"][:3])))
        elif tests.predicate["result"] == "WARNED":
            case.remark(f"the release {release.build[0][:16]} was signed without all of its tests having passed")


def claim_e2(history: History, releases: Releases, shipped: Shipped | None) -> Claim:
    """The shipped surface is closed: no undeclared flag, variable, key or route."""
    case = Case("E2")
    if releases.key is None:
        return keyless(case)
    seen: set[int] = set()
    for role in SERVICES:
        for life in history.lives.get(role, ()):
            release, _, manifest = life.build
            for known in releases.of(release, manifest):
                if known.given.index not in seen:
                    seen.add(known.given.index)
                    _check_surface(case, known, shipped)
                if role == "gateway":
                    _check_agents(case, life, known)
            if not releases.of(release, manifest):
                case.found("release-unknown", life.started.index, f"release {release[:16]} of the {role}")
    case.remark("that a scan found nothing else is the release key's word; `ironbound scan WHEEL` looks again")
    if shipped is None:
        case.remark("no release was given: the signed surface was not compared with a wheel (see --release)")
    case.population("surfaces signed")
    return case.close()


def _check_surface(case: Case, release: Signatures, shipped: Shipped | None) -> None:
    index = release.given.index
    if "surface" in release.wrong:
        case.found(release.wrong["surface"][0], index, release.wrong["surface"][1])
        return
    for text in contradictions(release):
        case.found("release-contradicts", index, text)
    surface = release.signed["surface"]
    says = surface.predicate
    case.count("surfaces signed")
    case.counts |= {"names on the closed list": says["listed"], "files scanned": says["files"]}
    for what in ("refused", "explained"):
        case.counts[f"switches {what}"] = says["switches"][what]
    active, unlisted = says["switches"]["active"], says["unlisted"]
    if says["verdict"] == ACTIVE or active or unlisted:
        case.found("surface-open", index, f"{says['verdict']}, {unlisted} not on the list, {active} switches work")
    if says["unread"]:
        case.found("surface-not-scanned", index, f"{says['unread']} files")
    if shipped is not None:
        _check_shipped(case, release, surface, shipped)


def _check_shipped(case: Case, release: Signatures, surface: Signed, shipped: Shipped) -> None:
    """What can be made anew from a wheel without running it."""
    index = release.given.index
    if shipped.release != release.build[0] or shipped.wheel not in (None, surface.wheel):
        shown = shipped.wheel or shipped.release
        case.found("release-differs", index, f"signed is the wheel {surface.wheel[:16]}, given was {shown[:16]}")
        return
    case.count("releases compared with the wheel")
    if shipped.listed != surface.predicate["list_sha256"]:
        case.found("surface-list-differs", index, f"scanned against the list {surface.predicate['list_sha256'][:16]}")
    if shipped.surface != surface.predicate["agent_surface_sha256"]:
        text = f"signed as {surface.predicate['agent_surface_sha256'][:16]}, the release ships {shipped.surface[:16]}"
        case.found("agent-surface-differs", index, text)


def _check_agents(case: Case, life: Life, release: Signatures) -> None:
    named, surface = life.started.says["surface_sha256"], release.signed.get("surface")
    if named is None:
        case.found("surface-not-announced", life.started.index, "the gateway named none")
    elif surface is not None:
        case.count("gateways that named the signed agent surface", named == surface.predicate["agent_surface_sha256"])
        if named != surface.predicate["agent_surface_sha256"]:
            text = f"the gateway named {named[:16]}, signed is {surface.predicate['agent_surface_sha256'][:16]}"
            case.found("agent-surface-differs", life.started.index, text)
