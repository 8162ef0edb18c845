"""The positive control of the native probes in containers: without just its wall, the same program gets out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_walls import NONCE, NOT_ON_THIS_HOST, WALLS, Without
from oci_walls import Box, box, compiled, every, intact, settings

from ironbound.canary.probes import UNCONTROLLED, load_probes
from ironbound.core.canary import verdict
from native_stand import PROBE, folder_for_all, make_rootfs

ROWS = {shipped.name: shipped.document for shipped in load_probes("native")}
RUNTIMES = ("runc", "crun", "gvisor")
#: What the host's kernel lacks, beside the calls.
HOST_LACKS = {one for one in ("sysrq-trigger",) if not Path("/proc/sysrq-trigger").exists()}
#: Whose wall is the guard's, or the gateway's on a channel of its own: those are refused in test_native_refused.py.
ELSEWHERE = {name for name, walls in WALLS.items() if walls.landlock or walls.channel is not None}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    program = compiled(Path(__file__).with_name("walled.c"), tmp_path_factory.mktemp("walled"))
    with folder_for_all() as folder:
        root = make_rootfs(folder, [PROBE, program])
        for name in ("etc", "run", "sys", "var"):
            (root / name).mkdir()
        yield folder


def verdicts(runtime: str, bundle: Path, walls: dict[str, Without], name: str) -> dict[str, tuple[str, str, str]]:
    """Verdict, its reason, and the whole report of each probe without these walls."""
    said = every(runtime, bundle / "rootfs", bundle / f"{runtime}-{name}", walls)
    return {one: (*verdict(ROWS[one], NONCE, "finished", "", text), text) for one, text in said.items()}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_in_a_container_without_its_wall_the_probe_escapes(runtime: str, bundle: Path) -> None:
    found = verdicts(runtime, bundle, dict(WALLS), "open")
    kept = {name: said for name, said in found.items() if said[0] != "ESCAPED"}
    lacks = set(UNCONTROLLED[runtime]) | (set() if runtime == "gvisor" else set(NOT_ON_THIS_HOST) | HOST_LACKS)
    print(f"{runtime}: {len(found) - len(kept)} of {len(found) - len(lacks)} positive controls escaped")
    assert set(kept) <= lacks, {name: kept[name] for name in sorted(set(kept) - lacks)}
    for name, (answer, _) in UNCONTROLLED[runtime].items():
        assert name not in kept or re.search(answer, kept[name][2]), kept[name]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_in_the_same_container_with_every_wall_the_probe_is_refused(runtime: str, bundle: Path) -> None:
    # gVisor's own work doesn't fit into a tenth of a processor.
    beside = ELSEWHERE | ({"limit-cpu"} if runtime == "gvisor" else set())
    found = verdicts(runtime, bundle, intact(set(WALLS) - beside), "intact")
    assert {name: said for name, said in found.items() if said[0] != "REFUSED"} == {}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_control_takes_something_down_and_leaves_what_its_row_does_not_name(runtime: str) -> None:
    for name, walls in WALLS.items():
        whole = box(runtime, name, Without(size=walls.size))
        assert whole == Box(share=whole.share)
        assert settings(runtime, name)
        assert settings(runtime, name) != ("Landlock",) or walls.landlock
        assert (
            walls.root
            or not box(runtime, name, walls).root
            or any(one.startswith("/proc/") for one in walls.present)
            or runtime == "gvisor"
        ), name
