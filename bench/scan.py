"""The scan of a whole installation: how long it takes, in seconds of the clock and of computing.

What is scanned is this environment, the runtime's packages and all that tests and builds need: far more than a host
has. The seconds of the clock are of this machine and what else runs on it; those of computing are of the scan alone.
"""

from __future__ import annotations

import os
import resource
import sysconfig
import time
from pathlib import Path
from typing import Any

from ironbound.supply.scan import scan
from ironbound.supply.scan_files import jobs_of

AIM_S = 30.0


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows: what was scanned, files, MB, findings, and seconds."""
    packages = Path(sysconfig.get_paths()["purelib"])
    rows = []
    for folder in [packages / "cryptography"] if quick else [packages / "cryptography", packages]:
        jobs, _ = jobs_of(folder)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.perf_counter()
        found = scan(folder)
        took = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        rows.append(
            {
                "scanned": folder.name,
                "files": len(jobs),
                "MB": sum(job.size for job in jobs) / 1e6,
                "findings": len(found.found),
                "unread": len(found.unread),
                "processes": len(os.sched_getaffinity(0)),
                "s": took,
                "s of computing": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "aim s": AIM_S,
            }
        )
    return rows
