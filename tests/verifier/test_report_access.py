"""The report is read without eyes and without a mouse too: axe finds nothing in it, in light and in dark."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ironbound.evidence.report.build import report_html
from pages import dump, needs_browser, state

from .lab import honest

SOURCE = Path(__file__).resolve().parents[1] / "axe"
INSTALL_S = 240
#: Runs when the page has checked itself, so that what its script draws is looked at too.
RUN = """<script>%s</script><script>(async () => {
  const root = document.documentElement;
  const checked = () => ["agrees", "disagrees", "broken"].includes(root.dataset.self);
  await new Promise((go) => {
    const watch = () => { if (checked()) go(); };
    new MutationObserver(watch).observe(root, { attributes: true });
    watch();
  });
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const { violations, passes } = await axe.run(document);
  const told = document.createElement("pre");
  told.id = "axe";
  const found = violations.map((one) => [one.id, one.nodes[0].html]);
  told.textContent = JSON.stringify({ passes: passes.length, violations: found });
  document.body.append(told);
})();</script></body>"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of npm's `axe-core`, by its lock file."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    place = tmp_path_factory.mktemp("axe")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, place)
    words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(place / "cache")]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    return (place / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="module")
def page() -> str:
    lab = honest().lab
    return report_html(io.BytesIO(lab.bundle()), lab.pin)[0].decode()


def looked_at(page: str, axe: str, folder: Path) -> dict[str, Any]:
    """What axe says of the page. Its own policy lets no other script in, so the copy has none."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    head, end, tail = free.rpartition("</body>")
    assert free != page and end
    (folder / "report.html").write_text(head + RUN % axe + tail, "utf-8")
    dom = dump(folder / "report.html", folder / "profile")
    assert state(dom) == "agrees"
    told = re.search(r'<pre id="axe">(.*?)</pre>', dom, re.DOTALL)
    assert told is not None, dom[-2000:]
    value: dict[str, Any] = json.loads(unescape(told[1]))
    return value


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_report(page: str, axe: str, tmp_path: Path, scheme: str) -> None:
    assert "(prefers-color-scheme: dark)" in page
    drawn = page.replace("(prefers-color-scheme: dark)", "all" if scheme == "dark" else "not all")
    said = looked_at(drawn, axe, tmp_path)
    assert said["violations"] == [] and said["passes"] >= 40


@needs_browser
def test_axe_does_find_what_is_wrong(page: str, axe: str, tmp_path: Path) -> None:
    worse = page.replace('<label for="pin">', "<label>").replace('<html lang="en">', "<html>")
    worse = worse.replace("</footer>", '<p style="color:#bbb;background:#ccc">pale</p></footer>')
    found = {name for name, _ in looked_at(worse, axe, tmp_path)["violations"]}
    assert {"html-has-lang", "color-contrast"} <= found
