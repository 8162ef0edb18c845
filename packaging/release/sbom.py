"""The wheel's bill of materials: CycloneDX 1.6, in the wheel's `.dist-info/sboms/` (PEP 770).

Decides nothing: it says what `requirements/runtime.txt` locks. A requirement has the hash of every file that may be
installed for it, by platform; which one was, the install manifest says. Plain data, since a library for it would be
one more thing that builds; a test holds it to the published schema. The same bytes for the same lock and version.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any, Final

from .lock import read_lock

FILE: Final = "ironbound.cdx.json"
_ROOT: Final = "-r runtime.in"


def bill(lock: str, version: str) -> bytes:
    """The bill of ironbound `version` with these locked requirements."""
    own = f"pkg:pypi/ironbound@{version}"
    locked = read_lock(lock)
    known = {one.name for one in locked}
    for one in locked:
        if not one.via or not set(one.via) <= known | {_ROOT}:
            raise ValueError(f"{one.name} is required by nobody of this lock: {one.via}")
    needs = {own: sorted(one.purl for one in locked if _ROOT in one.via)}
    for parent in locked:
        needs[parent.purl] = sorted(one.purl for one in locked if parent.name in one.via)
    value: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, own + hashlib.sha256(lock.encode()).hexdigest())}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "ironbound",
                "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
                "purl": own,
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": one.purl,
                "name": one.name,
                "version": one.version,
                "scope": "required",
                "hashes": [{"alg": "SHA-256", "content": sha256} for sha256 in one.sha256s],
                "purl": one.purl,
            }
            for one in locked
        ],
        "dependencies": [{"ref": ref, "dependsOn": on} if on else {"ref": ref} for ref, on in sorted(needs.items())],
    }
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()
