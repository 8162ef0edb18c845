"""Claims B1 and B3: the cage that was approved is the one that stood, and what changed in it was stopped.

Decides from the replayed log and the bytes of the configurations. B1 compares three mouths: the humans'
approval, the digest that the sandbox consumed, the monitor's own look. B3 follows each drift to its end.
(B2 is in `probes`.)

Rule 1: times are those that the entries state, and the window's end is the checkpoint's; no clock is read.
Rule 2: a node's word about its own time can't precede the monitor's order that it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ironbound.core.cage import compare_cage, expected_cage
from ironbound.core.canonical import FormatError, canonical
from ironbound.core.container import require_envelope
from ironbound.core.enclosure import require_enclosure_envelope
from ironbound.core.jailed import require_jailed_envelope
from ironbound.core.microvm import DESCRIPTORS, FIRECRACKER
from ironbound.core.native import parse_manifest, variables
from ironbound.core.own_filters import READ
from ironbound.core.posture import NOT_SEEN, POSTURE_VERSION
from ironbound.core.profile import NATIVE, WASM, family_of

from .beats import check_beats
from .claims import Case, Claim
from .history import History, Said
from .quotes import check_chain, check_quotes

#: The bytes with a digest, or None if the bundle lacks them.
Artifact = Callable[[str], bytes | None]
#: An effective configuration by digest: its value, None if the bundle lacks it; FormatError if it is none.
Config = Callable[[str], Any]
_OWN_NAMESPACES = ("net", "ipc", "uts")


def claim_b1(history: History, config_of: Config, artifact: Artifact) -> Claim:
    """Config approved = consumed = observed, for every launch."""
    case = Case("B1")
    profiles = history.replay.books.profiles
    for index, start in history.starts.items():
        case.count("launches")
        digest = start.says["config_sha256"]
        approved = profiles.get(digest)
        if approved is None or approved.index >= index:
            case.found("profile-unapproved", index, f"configuration {digest}")
        if history.launch(start.says["launch"]).config != digest:
            case.found("consumed-config-differs", index, f"consumed {digest}")
        try:
            config = config_of(digest)
        except FormatError as error:
            case.found("artifact-not-a-config", index, f"configuration {digest}: {error}")
            continue
        if config is None:
            case.found("artifact-missing", index, f"configuration {digest}")
        else:
            _check_expected(case, history, start, config, artifact)
        looks = history.observed[index]
        case.count("observations", len(looks))
        _check_look(case, history, start, looks[0])
    for start in history.void.get("started", ()):
        if start.void == "config-differs":
            text = f"agent {start.says['agent']} consumed {start.says['config_sha256']}"
            case.found("consumed-config-differs", start.index, text)
    check_quotes(case, history, "started", history.starts.values())
    check_chain(case, history)
    case.counts["configurations"] = len({one.says["config_sha256"] for one in history.starts.values()})
    case.population("launches")
    return case.close()


def _check_expected(case: Case, history: History, start: Said, config: Any, artifact: Artifact) -> None:
    """The node's own account, and the call that it made, are what the configuration demands, given the host's facts."""
    posture = start.says["posture"]
    try:
        facts = _facts(start.says, history.replay.trust.separation)
        if family_of(config) != WASM:
            module = artifact(start.says["module_sha256"])
            if module is None:
                case.found("artifact-missing", start.index, f"manifest {start.says['module_sha256']}")
                return
            nonce = history.launch(start.says["launch"]).nonce
            if family_of(config) == NATIVE:
                require_envelope(start.says["envelope"], config, module, nonce)
                facts |= _container_facts(history, start, module, nonce)
            else:
                firecracker = config["runtime"]["type"] == FIRECRACKER
                require = require_jailed_envelope if firecracker else require_enclosure_envelope
                require(start.says["envelope"], config, module, nonce)
                facts |= _machine_facts(history, start)
        expected = expected_cage(config, facts)
        differences = compare_cage(expected, posture)
        same = canonical(expected) == canonical(posture)
    except FormatError as error:
        case.found("posture-not-expected", start.index, str(error)[:200])
        return
    if not same:
        paths = ", ".join(one.path for one in differences) or "differs in what was left out"
        case.found("posture-not-expected", start.index, paths[:200])
        return
    runtime = start.says["runtime"]
    if runtime != config["runtime"]["type"]:
        case.found("posture-not-expected", start.index, f"runtime {runtime}, approved {config['runtime']['type']}")
    case.count(f"launches in {runtime}")
    if posture["filters"] is None:
        case.count("postures whose filter the host doesn't let anybody read")
    shared = [name for name in _OWN_NAMESPACES if posture["namespaces"][name] == "shared"]
    if shared:
        case.count(f"launches that share the host's namespaces {', '.join(shared)}")


def _facts(says: Mapping[str, Any], separation: str) -> dict[str, Any]:
    """The host's facts in a node's posture; what a configuration demands is not among them."""
    posture = says["posture"]
    try:
        facts = {
            "module_sha256": says["module_sha256"],
            "config_sha256": says["config_sha256"],
            "uid": posture["uid"][0],
            "gid": posture["gid"][0],
            "filters_visible": posture["filters"] is not None or says["runtime"] == "gvisor",
        }
        if posture["version"] == POSTURE_VERSION:
            facts |= {name: posture[name] for name in ("exe", "mappings", "namespaces")}
        if says["runtime"] == "gvisor":
            facts |= {"uid": says["uid"], "gid": says["envelope"]["place"]["gid"]}
        if separation == "process":
            facts["groups"] = posture["groups"]
            if posture["version"] == POSTURE_VERSION:
                facts["bounding"] = posture["caps"]["bnd"]
    except (KeyError, TypeError, IndexError):
        raise FormatError("posture-invalid", "the posture lacks fields") from None
    if facts["uid"] == 0 or facts["gid"] == 0 or facts["uid"] != says["uid"]:
        raise FormatError("posture-invalid", "a sandbox runs as the user that was stated, never as root")
    return facts


def _container_facts(history: History, start: Said, module: bytes, nonce: str | None) -> dict[str, Any]:
    envelope, says = start.says["envelope"], start.says
    bare = says["runtime"] == "bubblewrap"
    if envelope["place"]["uid"] != says["uid"] or envelope["runtime_sha256"] != says["runtime_sha256"]:
        raise FormatError("envelope-differs", "user and runtime are not those of the start")
    masks = says["posture"]["masks"] if isinstance(says["posture"], dict) else None
    manifest = parse_manifest(module)
    return {
        "guard": envelope["guard_sha256"],
        "runtime_sha256": says["runtime_sha256"],
        "rootfs_sha256": manifest.rootfs,
        "variables": [*variables(manifest, nonce)],
        "cgroup": "" if bare else f"{history.replay.trust.control_group}/{says['launch']}",
        "masks": masks,
    }


def _machine_facts(history: History, start: Said) -> dict[str, Any]:
    """The host's facts of a virtual machine, from the envelope and from what the node's posture says of the host."""
    envelope, says, posture = start.says["envelope"], start.says, start.says["posture"]
    if envelope["runtime_sha256"] != says["runtime_sha256"]:
        raise FormatError("envelope-differs", "the runtime is not that of the start")
    group = f"{history.replay.trust.control_group}/{says['launch']}"
    if envelope["runtime"] == FIRECRACKER:
        jail = envelope["jail"]
        if (jail["uid"], f"/{jail['parent']}/{jail['name']}") != (says["uid"], group):
            raise FormatError("envelope-differs", "the jail is not that of the start")
        return {"runtime_sha256": says["runtime_sha256"], "cgroup": group}
    try:
        points = [str(one).split(" ") for one in posture["mounts"]]
        grouped, libraries = posture["cgroup"] is not None, posture["mappings"]
    except (KeyError, TypeError):
        raise FormatError("posture-invalid", "the posture lacks fields") from None
    return {
        "runtime_sha256": says["runtime_sha256"],
        "separated": history.replay.trust.separation == "user",
        "accelerator": envelope["accelerator"],
        "libraries": libraries,
        "system": sorted(words[0][1:] for words in points if words[1:2] == ["host"]),
        **{name: envelope["fds"][str(DESCRIPTORS[name])] for name in ("kernel", "initrd", "firmware")},
        "cgroup": group if grouped else "",
    }


def _check_look(case: Case, history: History, start: Said, look: Said) -> None:
    """The first observation, for which the node holds the agent. What later ones show is drift (B3)."""
    posture = look.says["posture"]
    if posture.get("config_sha256") not in (start.says["config_sha256"], None):
        text = f"saw {posture['config_sha256']}, consumed {start.says['config_sha256']}"
        case.found("observed-config-differs", look.index, text[:200])
        return
    differs, unseen = _differences(history, start, look, True)
    if differs:
        case.found("observed-posture-differs", look.index, ", ".join(differs)[:200])
    elif unseen:
        case.found("posture-not-visible", look.index, ", ".join(unseen)[:200])
    elif start.says["runtime"] in READ and posture["filters"] is not None:
        case.count("launches behind the filter that the runtime's program had before")


def _differences(history: History, start: Said, look: Said, is_first: bool) -> tuple[list[str], list[str]]:
    """What differs between the node's and the monitor's posture, and from what the first look at the same program
    showed, recomputed, with what the monitor itself says; and what the monitor could not see."""
    stated = look.says["differences"]
    differs = {one["path"] for one in stated if one["got"] != NOT_SEEN}
    unseen = {one["path"] for one in stated if one["got"] == NOT_SEEN}
    try:
        found = [*compare_cage(start.says["posture"], look.says["posture"], running=not is_first)]
        if history.replay.trust.separation == "user":  # an ordinary user reads nobody's filter
            found += history.own_filters.compare(start.says, look.says["posture"])
    except FormatError as error:
        return [*sorted(differs), str(error)], sorted(unseen)
    differs |= {one.path for one in found if one.kind == "differs"}
    unseen |= {one.path for one in found if one.kind == "not-seen"}
    return sorted(differs), sorted(unseen)


def claim_b3(history: History, end_ms: int) -> Claim:
    """No drift, or each drift ended in a stop within its bound."""
    case = Case("B3")
    case.counts["observations"] = sum(len(looks) for looks in history.observed.values())
    bound = history.replay.trust.drift_stop_ms
    for drift in (*history.drifts, *history.void.get("drift", ())):
        case.count("drifts")
        _check_drift(case, history, drift, bound, end_ms)
    warned = {drift.says["started"] for drift in history.drifts}  # before or after the look: its end is checked above
    for index, looks in history.observed.items():
        for look in looks:
            is_first = look is looks[0]
            if index not in warned and _differences(history, history.starts[index], look, is_first)[0]:
                pending = end_ms <= look.says["at_ms"] + bound
                text = f"agent {look.says['agent']}, process {look.says['pid']}"
                case.found("drift-stop-pending" if pending else "difference-unheeded", look.index, text)
    check_beats(case, history, end_ms)
    if not case.counts["observations"] and not case.counts.get("drifts"):
        case.found("no-observation", None, "no observation and no drift")
    return case.close()


def stop_of(history: History, drift: Said) -> Said | None:
    """The monitor's first order to stop that cites this drift."""
    accepted = history.stop_orders.get(drift.index)
    if accepted:
        return accepted[0]
    return next((one for one in history.void.get("stop-order", ()) if one.says["drift"] == drift.index), None)


def _check_stray(case: Case, history: History, drift: Said, bound: int, text: str) -> None:
    """A process of no launch: no node says its end, but the monitor may have seen it."""
    ends = [end for end in history.ends.get(drift.index, ()) if end.says["pid"] == drift.says["pid"]]
    if not ends:
        case.found("end-unwitnessed", drift.index, text)
    elif ends[0].says["took_ms"] > bound:
        case.found("drift-stop-late", drift.index, f"{text}: ended after {ends[0].says['took_ms']} ms")


def _check_drift(case: Case, history: History, drift: Said, bound: int, end_ms: int) -> None:
    detected = drift.says["detected_ms"]
    text = f"{drift.says['kind']}, process {drift.says['pid']}"
    pending = end_ms <= detected + bound
    order = stop_of(history, drift)
    launch = history.launch_of(drift.says["started"])
    exited = None if launch is None else history.exits.get(launch.index)
    if order is None:
        case.found("drift-stop-pending" if pending else "drift-not-stopped", drift.index, text)
    elif launch is None and order.says["at_ms"] - detected > bound:
        case.found("drift-stop-late", drift.index, f"{text}: ordered after {order.says['at_ms'] - detected} ms")
    elif launch is None:
        _check_stray(case, history, drift, bound, text)
    elif exited is None:
        case.found("drift-stop-pending" if pending else "drift-stop-late", drift.index, f"{text}: no end")
    else:
        took = max(exited.says["at_ms"], order.says["at_ms"]) - detected  # Rule 2
        case.counts["slowest stop, ms"] = max(took, case.counts.get("slowest stop, ms", 0))
        if took > bound:
            case.found("drift-stop-late", drift.index, f"{text}: ended after {took} ms, bound {bound} ms")
