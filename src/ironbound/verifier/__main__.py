"""The command: `ironbound verify`, and on its own `ironbound-verify` or `python -m ironbound.verifier`.

Decides nothing: it opens the file, hands it to `verify`, and prints. Reading that file, a release and operators' copies
is its only I/O.
Exit codes are the contract: 0 every claim holds; 1 a claim is refuted; 2 usage, or the verifier itself failed; 3 the
bundle's integrity is broken; 4 nothing refuted, but something unproven.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from ironbound.core.canonical import FormatError
from ironbound.core.trust import Pin, parse_pin

from .bundle import BundleBroken
from .output import broken_lines, broken_value, report_lines, report_value, tenths
from .power import Kept, read_kept
from .release import Shipped, shipped
from .verify import EXIT_BROKEN, EXIT_USAGE, verify_bundle

USAGE: Final = """\
usage: ironbound verify BUNDLE [--pin PIN] [--release PATH] [--kept FILE]… [--json]

Checks an evidence bundle offline and says which claims hold, which are refuted and which are unproven.

  --pin PIN   deployment, trust root and log key, as they reached you by another road;
              without it nothing ties the bundle to your deployment, and the best result is 4
  --release PATH
              the wheel, or the folder, of the release that should have run: read, never executed;
              its digest and the agent surface in it are compared with what the gateway logged
  --kept FILE an operator's own copy of a signed request (as `--out` writes it), to be looked for in the log;
              again for each more
  --json      print the report as JSON

exit codes: 0 every claim holds; 1 a claim is refuted; 2 usage, or the verifier failed; 3 the bundle's integrity
            is broken; 4 nothing refuted, but something unproven

example:
  ironbound verify evidence.ironbound --pin "$(cat pin.txt)"
"""


class UsageError(Exception):
    """The command line is not what the usage says."""


def _arguments(argv: Sequence[str]) -> tuple[str, Pin | None, bool, Shipped | None, list[Kept]]:
    path: str | None = None
    pin: Pin | None = None
    release: Shipped | None = None
    as_json = False
    kept: list[Kept] = []
    words = iter(argv)
    for word in words:
        if word == "--json":
            as_json = True
        elif word == "--pin" or word.startswith("--pin="):
            if pin is not None:
                raise UsageError("--pin is given twice")
            value = next(words, "") if word == "--pin" else word.removeprefix("--pin=")
            try:
                pin = parse_pin(value)
            except FormatError as error:
                raise UsageError(error.message) from None
        elif word == "--release" or word.startswith("--release="):
            if release is not None:
                raise UsageError("--release is given twice")
            value = next(words, "") if word == "--release" else word.removeprefix("--release=")
            try:
                release = shipped(Path(value))
            except (FormatError, OSError) as error:
                raise UsageError(str(error)) from None
        elif word == "--kept" or word.startswith("--kept="):
            value = next(words, "") if word == "--kept" else word.removeprefix("--kept=")
            try:
                kept.append(read_kept(Path(value).read_bytes()))
            except (FormatError, OSError) as error:
                raise UsageError(f"{value}: {error}") from None
        elif word.startswith("-"):
            raise UsageError(f"no such option: {word}")
        elif path is not None:
            raise UsageError(f"one bundle at a time, got {word} too")
        else:
            path = word
    if path is None:
        raise UsageError("no bundle is given")
    return path, pin, as_json, release, kept


def _print(lines: Iterable[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"ironbound verify: {text}\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Verify a bundle, print the report on standard output, and return the exit code. `argv` is without the name."""
    argv = sys.argv[1:] if argv is None else argv
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(USAGE)
        return 0
    try:
        path, pin, as_json, release, kept = _arguments(argv)
    except UsageError as error:
        sys.stderr.write(f"ironbound verify: {error}\n\n{USAGE}")
        return EXIT_USAGE
    try:
        file = open(path, "rb")
    except OSError as error:
        sys.stderr.write(f"ironbound verify: {path}: {error.strerror}\n")
        return EXIT_USAGE
    with file:
        try:
            report = verify_bundle(file, pin, tenths(_tell), shipped=release, kept=kept)
        except BundleBroken as broken:
            _print([json.dumps(broken_value(broken), indent=2)] if as_json else broken_lines(broken))
            return EXIT_BROKEN
        except OSError as error:
            sys.stderr.write(f"ironbound verify: {path}: {error.strerror}\n")
            return EXIT_USAGE
        except Exception:  # noqa: BLE001 - Python would end with 1, as if a claim were refuted
            traceback.print_exc()
            _tell("failed; nothing was judged, and nothing is said of the bundle")
            return EXIT_USAGE
    if as_json:
        _print([json.dumps(report_value(report), indent=2)])
    else:
        _print(report_lines(report, sys.stdout.isatty()))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
