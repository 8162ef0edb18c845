"""How the wheel came about: SLSA provenance v1, section "Schema".

Decides nothing. It claims no more than what is true of a build on somebody's own machine: that there is provenance,
and what it was (Build L1). Who held the machine could have signed anything with this key, so it is not L2; see
docs/release.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .lock import read_lock

BUILD_TYPE: Final = "https://ironbound.dev/build/hatchling/v1"
BUILDER: Final = "https://ironbound.dev/builder/local/v1"
LOCKS: Final = ("build", "runtime")


def provenance(built: Mapping[str, Any], locks: Mapping[str, str]) -> dict[str, Any]:
    """The predicate. `built` is what the build said of itself, `locks` the text of each of LOCKS."""
    source: dict[str, Any] = {"name": "source", "digest": {"sha256": built["tree"]}}
    if built["commit"] is not None and not built["changed"]:
        source["digest"]["gitCommit"] = built["commit"]
    else:
        source["annotations"] = {"commit": built["commit"], "changed": True}
    requirements = [
        {"name": f"{lock}: {one.name}", "uri": one.purl, "digest": {"sha256": sha256}}
        for lock in LOCKS
        for one in read_lock(locks[lock])
        for sha256 in one.sha256s
    ]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"source": source["digest"], "targets": ["sdist", "wheel"]},
            "internalParameters": {"SOURCE_DATE_EPOCH": built["epoch"], "python": built["python"]},
            "resolvedDependencies": [source, *requirements],
        },
        "runDetails": {"builder": {"id": BUILDER}},
    }
