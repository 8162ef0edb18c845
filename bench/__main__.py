"""`python -m bench [NAME…] [--quick] [--json FILE]`: runs the measurements, prints a table.

A measurement is a module of this package with `def run(quick: bool) -> list[dict[str, object]]`: one dict a
row, in the order of its columns. Ratios are taken within one run, since the machine is not the same twice.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import bench

Row = dict[str, object]


def _modules() -> list[str]:
    return sorted(one.name for one in pkgutil.iter_modules(bench.__path__) if not one.name.startswith("_"))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text; a column for each key that any row has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_text(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Run the measurements.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all): " + ", ".join(_modules()))
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON too")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in _modules()]
    if unknown:
        parser.error(f"no measurement {unknown[0]!r}; there are: {', '.join(_modules())}")
    results: dict[str, list[Row]] = {}
    for name in options.names or _modules():
        module = importlib.import_module(f"bench.{name}")
        if not hasattr(module, "run"):
            continue
        print(f"{name}\n{'=' * len(name)}", flush=True)
        results[name] = module.run(options.quick)
        print(table(results[name]), end="\n\n", flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
