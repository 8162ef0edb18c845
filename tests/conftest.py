"""What every test shares: the vectors beside the checkout, and the rule that nothing is left out unseen.

Rule 1: on CI a test that does not run is a failure, unless a row of tests/SKIPS.md says where and why.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from skips import parse_skips

pytest_plugins = ["pytester"]

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
SKIPS = TESTS / "SKIPS.md"

# No example database: a run leaves nothing behind and needs no writable checkout. CI draws the same examples
# each time, so that a red run can be had again; at home each run draws new ones.
settings.register_profile("home", database=None, deadline=None)
settings.register_profile("ci", database=None, deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "home")


def refuse_unlisted(report: Any, nodeid: str, marks: set[str]) -> None:
    """Turns a skip that no row covers into a failure (on CI only). An expected failure is not a skip."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    rows = parse_skips(SKIPS.read_text("utf-8"))
    if any(row.covers(nodeid, marks, root=os.geteuid() == 0) for row in rows):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{nodeid}: skipped on CI without a row in tests/SKIPS.md ({reason})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    refuse_unlisted(report, item.nodeid, {mark.name for mark in item.iter_markers()})
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    refuse_unlisted(report, collector.nodeid, set())
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A socket's path ends at 108 bytes: `0` instead of `popen-gw0`.
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is not None and config.option.basetemp is not None:
        config.option.basetemp = str(Path(config.option.basetemp).with_name(worker.removeprefix("gw")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    import sharing  # a release is tried with pytest alone

    return sharing.processes(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    import sharing

    return sharing.Scheduler(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        import sharing

        items.sort(key=lambda item: sharing.rank(item.nodeid))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session", autouse=True)
def _passable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Services with users of their own pass through the folders above a test's; they can't list them."""
    base = tmp_path_factory.getbasetemp()
    for one in (base, base.parent) if hasattr(request.config, "workerinput") else (base,):
        one.chmod(one.stat().st_mode | 0o711)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout's own folder."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The published test vectors, `../shared/data` beside the checkout; without them the test is skipped."""
    data = CHECKOUT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("no test vectors beside the checkout (../shared/data)")
    return data
