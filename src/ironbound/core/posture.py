"""Posture: what a worker of one configuration must look like from outside, and how a sample differs from it.

Decides the expected posture of a worker (ids, capabilities, filter, limits, descriptors, digests) from its
configuration and the facts of its host, and lists each difference between that and an observed one. It looks
at nothing: `monitor/observe.py` takes the sample. It does not judge what a difference is worth. A Landlock
domain is not part of it: no process can see another's. Field names follow proc(5), capabilities(7),
seccomp(2).

Rule 1: what was not seen is never equal to anything. A null where something is expected is NOT_SEEN.
Rule 2: the expectation may leave out the filter alone, where the observer may not read it; then `unseen` says
        so, and a filter that was read after all is still held against the worker's own.
Rule 3: what the expectation does not name (one descriptor more, one mapping more) is a difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ironbound.core.canonical import Digest, FormatError, Value, canonical, sha256_hex
from ironbound.core.limits import RLIMIT_NAMES, WORKER_THREADS, worker_rlimits
from ironbound.core.seccomp import filter_digest, worker_filter

POSTURE_VERSION: Final = 1
NAMESPACES: Final = ("net", "ipc", "uts", "user", "pid", "mnt", "cgroup")
CAPABILITY_SETS: Final = ("inh", "prm", "eff", "bnd", "amb")
NO_CAPABILITIES: Final = "0" * 16
SECCOMP_FILTER: Final = 2
"""The value of "Seccomp:" in /proc/PID/status for a process under a filter."""

NOT_SEEN: Final = "not seen"
"""What a difference says it got where the sample holds null. No value of a posture reads like this."""

WORKER_DESCRIPTORS: Final[dict[str, Value]] = {
    "0": "/dev/null",
    "1": "/dev/null",
    "2": "/dev/null",
    "3": "memfd:config:sealed",
    "4": "memfd:module:sealed",
    "5": "socket",
    "6": "socket",
}
"""Every descriptor of a worker by its symbolic name."""

FIELDS: Final = (
    "version",
    "uid",
    "gid",
    "groups",
    "caps",
    "no_new_privs",
    "seccomp",
    "filters",
    "threads",
    "namespaces",
    "exe",
    "environment",
    "mappings",
    "writable_executable",
    "rlimits",
    "fds",
    "tracer",
    "config_sha256",
    "module_sha256",
)

MAX_MAPPINGS: Final = 512
MAX_GROUPS: Final = 1024
_MAX_ID: Final = 2**32 - 2

_FACTS: Final = frozenset(
    {"uid", "gid", "exe", "mappings", "namespaces", "module_sha256", "config_sha256", "filters_visible"}
)
_OPTIONAL_FACTS: Final = frozenset({"groups", "bounding"})
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MASK: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where a sample is not what was expected.

    `path` names the field, with dots (`rlimits.nofile`, `fds.7`). `expected` is null where nothing was
    expected there, `got` is null where nothing was found there, and NOT_SEEN where the observer could not
    look. Of `mappings`, whose lists are long, `expected` holds only those that are missing and `got` only
    those that nobody expected.
    """

    path: str
    expected: Value
    got: Value

    @property
    def kind(self) -> Literal["differs", "not-seen"]:
        """Whether the field was seen and differs, or could not be seen."""
        return "not-seen" if self.got == NOT_SEEN else "differs"

    def as_value(self) -> Value:
        """The form that `drift` and `observed` statements carry."""
        return {"path": self.path, "expected": self.expected, "got": self.got}


def _facts(facts: Value) -> dict[str, Value]:
    if not isinstance(facts, dict):
        raise FormatError("facts-invalid", f"expected an object, got {type(facts).__name__}")
    names = set(facts)
    if not _FACTS <= names or not names <= _FACTS | _OPTIONAL_FACTS:
        wrong = sorted(_FACTS - names) + sorted(names - _FACTS - _OPTIONAL_FACTS)
        raise FormatError("facts-invalid", f"missing or unknown: {', '.join(wrong)[:200]}")
    return facts


def _identity(facts: Mapping[str, Value], name: str) -> int:
    value = facts[name]
    if type(value) is not int or not 0 <= value <= _MAX_ID:
        raise FormatError("facts-invalid", f"{name}: expected a user or group id")
    return value


def _digest(value: Value, name: str) -> Digest:
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise FormatError("facts-invalid", f"{name}: expected a SHA-256 digest")
    return Digest(value)


def _mappings(value: Value) -> list[Value]:
    if not isinstance(value, list) or len(value) > MAX_MAPPINGS:
        raise FormatError("facts-invalid", f"mappings: expected at most {MAX_MAPPINGS} digests")
    digests: list[Value] = []
    digests += sorted({_digest(item, "mappings") for item in value})
    return digests


def _groups(value: Value) -> list[Value]:
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        raise FormatError("facts-invalid", f"groups: expected at most {MAX_GROUPS} group ids")
    groups: set[int] = set()
    for item in value:
        if type(item) is not int or not 0 <= item <= _MAX_ID:
            raise FormatError("facts-invalid", "groups: expected group ids")
        groups.add(item)
    return [*sorted(groups)]


def _namespaces(value: Value) -> dict[str, Value]:
    if not isinstance(value, dict) or set(value) != set(NAMESPACES):
        raise FormatError("facts-invalid", f"namespaces: expected {', '.join(NAMESPACES)}")
    if any(item not in ("private", "shared") for item in value.values()):
        raise FormatError("facts-invalid", "namespaces: expected 'private' or 'shared'")
    return dict(value)


def expected_posture(config: Value, facts: Value) -> Value:
    """The posture of a worker that consumed the effective configuration `config` on a host with these facts.

    `facts` holds uid, gid, exe, mappings, namespaces, module_sha256, config_sha256 and filters_visible. It
    may hold `groups` (supplementary groups that an ordinary user cannot give up, none by default) and
    `bounding` (the bounding set, 16 hex digits, that remains without CAP_SETPCAP; empty by default). Raises
    FormatError ('facts-invalid', 'config-invalid'), also where config_sha256 is not the digest of `config`.
    """
    given = _facts(facts)
    uid, gid = _identity(given, "uid"), _identity(given, "gid")
    config_sha256 = _digest(given["config_sha256"], "config_sha256")
    if (digest := sha256_hex(canonical(config))) != config_sha256:
        raise FormatError("facts-invalid", f"config_sha256: expected {digest}, got {config_sha256}")
    visible = given["filters_visible"]
    if not isinstance(visible, bool):
        raise FormatError("facts-invalid", "filters_visible: expected true or false")
    bounding = given.get("bounding", NO_CAPABILITIES)
    if not isinstance(bounding, str) or _MASK.fullmatch(bounding) is None:
        raise FormatError("facts-invalid", "bounding: expected 16 lower-case hexadecimal digits")
    caps: dict[str, Value] = dict.fromkeys(CAPABILITY_SETS, NO_CAPABILITIES)
    caps["bnd"] = bounding
    rlimits: dict[str, Value] = {name: [soft, hard] for name, (soft, hard) in worker_rlimits(config).items()}
    return {
        "version": POSTURE_VERSION,
        "uid": [uid] * 4,
        "gid": [gid] * 4,
        "groups": _groups(given.get("groups", [])),
        "caps": caps,
        "no_new_privs": 1,
        "seccomp": SECCOMP_FILTER,
        "filters": _worker_filters() if visible else None,
        "threads": {"count": WORKER_THREADS, "uniform": True},
        "namespaces": _namespaces(given["namespaces"]),
        "exe": _digest(given["exe"], "exe"),
        "environment": {},
        "mappings": _mappings(given["mappings"]),
        "writable_executable": 0,
        "rlimits": rlimits,
        "fds": dict(WORKER_DESCRIPTORS),
        "tracer": 0,
        "config_sha256": config_sha256,
        "module_sha256": _digest(given["module_sha256"], "module_sha256"),
    }


def _worker_filters() -> list[Value]:
    return [filter_digest(worker_filter())]


def require_posture(
    value: Value, whose: str, fields: Sequence[str] = FIELDS, version: int = POSTURE_VERSION
) -> dict[str, Value]:
    """The posture, with exactly these fields and of this version. Raises FormatError ('posture-invalid')."""
    if not isinstance(value, dict):
        raise FormatError("posture-invalid", f"{whose}: expected an object, got {type(value).__name__}")
    if set(value) != set(fields):
        wrong = sorted(set(value) ^ set(fields))
        raise FormatError("posture-invalid", f"{whose}: missing or unknown: {', '.join(wrong)[:200]}")
    if type(value["version"]) is not int or value["version"] != version:
        raise FormatError("posture-invalid", f"{whose}: expected version {version}")
    canonical(value)
    return value


def compare_postures(expected: Value, observed: Value) -> tuple[Difference, ...]:
    """Every difference, sorted by path; empty where the sample is exactly what was expected.

    Raises FormatError ('posture-invalid', or as `canonical` does) where either is not a posture, and where
    the expectation leaves out anything but the filter.
    """
    want, got = dict(require_posture(expected, "expected")), require_posture(observed, "observed")
    if want["filters"] is None and got["filters"] is not None:
        want["filters"] = _worker_filters()
    differences: list[Difference] = []
    for field in FIELDS:
        if want[field] is None:
            if field != "filters":
                raise FormatError("posture-invalid", f"expected: {field} may not be left out")
        elif field == "mappings":
            differences += _compare_lists(field, want[field], got[field])
        else:
            differences += compare(field, want[field], got[field])
    return tuple(sorted(differences, key=lambda difference: difference.path))


def _same(expected: Value, got: Value) -> bool:
    # Canonical bytes tell 1 from true, which Python's == does not.
    return canonical(expected) == canonical(got)


def compare(path: str, expected: Value, got: Value) -> list[Difference]:
    """The differences of one field and of what is below it; null in `got` is NOT_SEEN."""
    if got is None:
        return [Difference(path, expected, NOT_SEEN)]
    if not isinstance(expected, dict) or not isinstance(got, dict):
        return [] if _same(expected, got) else [Difference(path, expected, got)]
    differences: list[Difference] = []
    for name in sorted({*expected, *got}):
        below = f"{path}.{name}"
        if name not in got:
            differences.append(Difference(below, expected[name], None))
        elif name not in expected:
            differences.append(Difference(below, None, NOT_SEEN if got[name] is None else got[name]))
        else:
            differences += compare(below, expected[name], got[name])
    return differences


def _compare_lists(path: str, expected: Value, got: Value) -> list[Difference]:
    if not isinstance(expected, list) or not isinstance(got, list):
        return compare(path, expected, got)
    missing: list[Value] = [item for item in expected if item not in got]
    strange: list[Value] = [item for item in got if item not in expected]
    if missing or strange:
        return [Difference(path, missing, strange)]
    return [] if _same(expected, got) else [Difference(path, expected, got)]


def unseen(observed: Value) -> tuple[str, ...]:
    """The paths of everything in a sample that its observer could not see, sorted. Raises FormatError."""
    return tuple(sorted(_nulls("", require_posture(observed, "observed"))))


def _nulls(path: str, value: Value) -> list[str]:
    if value is None:
        return [path]
    if not isinstance(value, dict):
        return []
    prefix = f"{path}." if path else ""
    return [found for name, item in value.items() for found in _nulls(prefix + name, item)]


__all__ = [
    "CAPABILITY_SETS",
    "FIELDS",
    "NAMESPACES",
    "NOT_SEEN",
    "NO_CAPABILITIES",
    "RLIMIT_NAMES",
    "WORKER_DESCRIPTORS",
    "Difference",
    "compare",
    "compare_postures",
    "expected_posture",
    "require_posture",
    "unseen",
]
