"""The report of a large log: how long it takes beside the verification alone, how large it is, and how it opens.

Export, verification and report of the same log in the same run, in turn. How it opens is measured in a headless
Chromium by its driver: until the page is loaded, until its own check says something, and the longest time for which it
answered nobody meanwhile. Without Chromium these columns are missing, and a row says so.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bench.floor import percentile
from bench.verify import action_log
from ironbound.core.trust import Pin
from ironbound.evidence.report.build import report_html
from ironbound.terminal.demo.browser import Browser, Driver
from ironbound.terminal.voice import Stop
from ironbound.verifier.verify import verify_bundle

RATIO, SIZE_MB, OPENS_MS = 2.0, 10.0, 2000.0
"""Aims: the report's time in verifications, its size, and when its page answers."""
CHECK_S = 600
T = TypeVar("T")


def _timed(into: list[float], work: Callable[..., T], *given: object) -> T:
    begin = time.perf_counter()
    result = work(*given)
    into.append(time.perf_counter() - begin)
    return result


def run(quick: bool) -> list[dict[str, Any]]:
    """Rows: the report's making (seconds, in verifications), its size (MB), and its page (ms)."""
    lab, rounds = action_log(2_500 if quick else 50_000, calls=1000).lab, 3
    size, pin = len(lab.entries), lab.pin
    exported: list[float] = []
    verified: list[float] = []
    made: list[float] = []
    data = page = b""
    for _ in range(rounds):
        data = _timed(exported, lab.bundle)
        _timed(verified, verify_bundle, io.BytesIO(data), pin)
        page, report = _timed(made, report_html, io.BytesIO(data), pin)
        if report.exit_code != 4:
            raise RuntimeError(f"the log should verify, got exit {report.exit_code}")
    both = [one / other for one, other in zip(made, verified, strict=True)]
    times = {"p50": round(percentile(made, 0.5), 2), "p99": round(percentile(made, 0.99), 2)}
    ratio = round(percentile(both, 0.5), 2)
    megabytes = round(len(page) / 1e6, 2)
    return [
        {"name": f"verify {size:,} entries", "unit": "s", "p50": round(percentile(verified, 0.5), 2),
         "p99": round(percentile(verified, 0.99), 2)},
        {"name": f"pack {size:,} entries as a bundle", "unit": "s", "p50": round(percentile(exported, 0.5), 2),
         "p99": round(percentile(exported, 0.99), 2)},
        {"name": "verify them and make the report", "unit": "s", **times, "ratio": ratio, "aim": RATIO,
         "met": ratio <= RATIO},
        {"name": "the report's size", "unit": "MB", "p50": megabytes, "aim": SIZE_MB, "met": megabytes <= SIZE_MB},
        *_opened(page, pin, rounds),
    ]  # fmt: skip


def _opened(page: bytes, pin: Pin, rounds: int) -> list[dict[str, Any]]:
    loaded: list[float] = []
    checked: list[float] = []
    silent: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_bytes(page)
        try:
            driver = Driver()
        except Stop as stop:
            return [{"name": f"the page was not opened: {stop}", "met": "not tested"}]
        with driver:
            for _ in range(rounds):
                browser = Browser(driver)
                begin = time.perf_counter()
                browser.open(file.as_uri())
                loaded.append((time.perf_counter() - begin) * 1e3)
                longest = 0.0
                while browser.script("return document.documentElement.dataset.self ?? null") is None:
                    if time.perf_counter() - begin > CHECK_S:
                        raise RuntimeError("the page does not end its check")
                    asked = time.perf_counter()
                    browser.script("document.querySelector('#claims').scrollIntoView()")
                    longest = max(longest, (time.perf_counter() - asked) * 1e3)
                    time.sleep(0.01)
                said = browser.script("return document.documentElement.dataset.self")
                if said != "agrees":
                    raise RuntimeError(f"the page {said}: {browser.text('#self-says')}")
                checked.append((time.perf_counter() - begin) * 1e3)
                silent.append(longest)
                browser.close()
    rows = []
    for name, took, aim in (
        ("its page is loaded", loaded, OPENS_MS),
        ("the longest time that it answered nobody", silent, OPENS_MS),
        ("its own check is done", checked, None),
    ):
        p50 = round(percentile(took, 0.5))
        row = {"name": name, "unit": "ms", "p50": p50, "p99": round(percentile(took, 0.99))}
        rows.append(row if aim is None else row | {"aim": aim, "met": p50 <= aim})
    return rows


if __name__ == "__main__":
    print(run("--quick" in sys.argv))
