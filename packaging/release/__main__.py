"""`./dev release`, after it has made the environments: build, install, sign.

    build CHECKOUT WORK                 wheel and sdist from a copy of the source; hatchling's environment
    install WORK                        the wheel into the environment that runs this
    key FILE                            a new release key, which nobody else may read
    check KEY                           whether that can be a release key, before anything is built
    sign WORK OUT TOOLS KEY TESTS...    tries, scans and measures what is installed; signs; runs in it
    host MEASURED RELEASE OUT KEY       the release in a folder, with an install manifest for another host

Rule 1: what is scanned, tried and measured is the wheel that is signed: its package's digest is compared before and
after, and no statement is signed unless all can be.
Rule 2: tests that were not run are said not to have been; one that fails ends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from release.make import Stop, build, install

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
"""The package of this checkout, for what needs no installation of it."""


def main(words: list[str]) -> int:
    """Exit code 1: no release, and why is on standard error."""
    try:
        match words:
            case ["build", checkout, work]:
                build(Path(checkout), Path(work))
            case ["install", work]:
                install(Path(work))
            case ["key", file]:
                from release.sign import make_key

                make_key(Path(file))
            case ["check", key]:
                sys.path.insert(0, SOURCE)
                from release.sign import check_key

                check_key(Path(key))
            case ["sign", work, out, tools, key, *tests]:
                from release.sign import sign

                sign(Path(work), Path(out), Path(tools), Path(key), tests)
            case ["host", measured, release, out, key]:
                sys.path.insert(0, SOURCE)
                from release.host import sign_for_host

                sign_for_host(Path(measured), Path(release), Path(out), Path(key))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except Stop as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
