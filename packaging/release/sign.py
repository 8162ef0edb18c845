"""Tries, scans and measures the installed wheel, and signs what was found. Runs in that installation.

Decides when there is no release: the surface is open or could not be read whole, a test failed, the package changed
meanwhile. What it signs, `core.release` reads back first.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ironbound
from ironbound.core.canonical import Digest, FormatError, canonical, sha256_hex
from ironbound.core.keys import PrivateKey, PublicKey
from ironbound.core.release import PREDICATES, read_signed, sign_release
from ironbound.core.scheme import key_entry
from ironbound.supply.scan import ACTIVE, REFUSES, judge, scan
from ironbound.supply.scan_list import parse_list, shipped_list
from ironbound.supply.scan_trial import START_S, tried
from ironbound.terminal.main import main as command
from ironbound.verifier.release import read_release, release_digest, shipped
from ironbound.wire.measure import ENVIRONMENT

from .make import BUILT, Stop, wheel_of
from .provenance import LOCKS, provenance

#: The core's tests but those of its mutants, which are about the tests, and attacks on what the verifier reads.
USUAL: Final = (
    "tests/core",
    *(f"tests/verifier/test_{name}.py" for name in ("attacks", "bundle", "open_ends", "people", "proved", "windows")),
    "-m",
    "not slow",
    "--ignore",
    "tests/core/test_mutants.py",
)
#: The demo's: of each part of the core, in a few seconds.
QUICK: Final = tuple(f"tests/core/test_{name}.py" for name in ("authority", "merkle", "request", "statement", "trust"))
#: Characters of a test's name in the statement.
MAX_NAME: Final = 400
_PYTEST: Final = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly")


def sign(work: Path, out: Path, tools: Path, key_file: Path, words: list[str]) -> None:
    """Writes the release's folder. `words`: pytest's arguments, `usual`, `quick`, or `none`."""
    key = read_key(key_file)
    wheel = wheel_of(work / "dist")
    built = json.loads((work / BUILT).read_text("utf-8"))  # noqa: TID251 - the build's own, of this run
    package = Path(ironbound.__file__).parent
    whole = shipped(wheel)
    if release_digest(read_release(package)) != whole.release:
        raise Stop(f"what is installed in {package.parent} is not {wheel.name}")
    chosen = {"usual": list(USUAL), "quick": list(QUICK), "none": []}.get(" ".join(words), words)
    run = _start(work / "source", tools, chosen) if chosen else None
    try:
        install = _install(whole.release)
        tests = tests_of(run, built, work, whole.release, chosen)
    finally:
        if run is not None:
            run[0].kill()
            run[0].wait()
    sys.path.append(str(tools))
    predicates = {
        "provenance": provenance(built, {one: _lock(work, one) for one in LOCKS}),
        "tests": tests,
        "surface": _surface(wheel, whole.surface),
        "install": install,
    }
    if release_digest(read_release(package)) != whole.release:
        raise Stop("the installed package changed while it was tried")
    _write(work / "dist", out, predicates, key)


def make_key(file: Path) -> None:
    """A new key in PKCS#8, not encrypted, for its owner alone; Stop if there is a file of that name."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Stop(f"no key can be put into {file}: {error}") from error
    with open(descriptor, "wb") as into:
        into.write(PrivateKey.generate(os.urandom(32)).to_pem(None))


def check_key(file: Path) -> None:
    """Stop if what is in the file can't be a release key; one with a passphrase is seen to be one only with it."""
    if not _is_encrypted(_key_bytes(file)):
        read_key(file)


def read_key(file: Path) -> PrivateKey:
    """The release key in a file, for which its passphrase is asked on the terminal; Stop if it is none."""
    pem = _key_bytes(file)
    try:
        return PrivateKey.from_pem(pem, _passphrase(file) if _is_encrypted(pem) else None)
    except FormatError as error:
        raise Stop(f"no release key in {file}: {error}") from error


def _key_bytes(file: Path) -> bytes:
    try:
        if file.stat().st_mode & 0o077:
            raise Stop(f"{file} is open to others, so it is nobody's key: chmod 600 {file}")
        return file.read_bytes()
    except OSError as error:
        raise Stop(f"no release key in {file}: {error}") from error


def _is_encrypted(pem: bytes) -> bool:
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem


def _passphrase(file: Path) -> bytes:
    try:
        return getpass.getpass(f"Passphrase of {file}: ").encode()
    except EOFError:
        raise Stop(f"{file} has a passphrase, and none was given: start this where there is a terminal") from None


def _lock(work: Path, name: str) -> str:
    return (work / "source" / "requirements" / f"{name}.txt").read_text("utf-8")


def _start(source: Path, tools: Path, chosen: list[str]) -> tuple[subprocess.Popen[str], Path]:
    results = source.parent / "results.json"
    program = source / "packaging" / "release" / "results.py"
    place = f"--basetemp={source.parent / 't'}"
    words = [sys.executable, "-I", "-B", str(program), str(tools), str(results), *_PYTEST, place, *chosen]
    environment = {**os.environ, "CI": "", "PYTHONDONTWRITEBYTECODE": "1"}
    output = (source.parent / "tests.log").open("w", encoding="utf-8")
    with output:
        return subprocess.Popen(words, cwd=source, env=environment, text=True, stdout=output, stderr=output), results


def tests_of(
    run: tuple[subprocess.Popen[str], Path] | None,
    built: dict[str, Any],
    work: Path,
    package: Digest,
    chosen: list[str],
) -> dict[str, Any]:
    """The predicate about the tests that ran, or that none did; Stop if one failed or another package was tried."""
    said: dict[str, str] = {}
    if run is not None:
        process, results = run
        code = process.wait()
        log = (work / "tests.log").read_text("utf-8", "replace")
        if code or not results.is_file():
            raise Stop(f"the tests of the installed wheel failed (code {code}); nothing is signed\n{log[-4000:]}")
        found = json.loads(results.read_text("utf-8"))  # noqa: TID251 - our own, of this run
        if release_digest(read_release(Path(found["package"]))) != package:
            raise Stop(f"the tests ran on {found['package']}, which is not the wheel")
        said = found["said"]
    by = {word: sorted(named(test) for test, got in said.items() if got == word) for word in ("passed", "skipped")}
    locks = [
        {"name": f"requirements/{one}.txt", "digest": {"sha256": sha256_hex(_lock(work, one).encode())}}
        for one in LOCKS
    ]
    return {
        "result": "PASSED" if by["passed"] else "WARNED",
        "configuration": [{"name": "source", "digest": {"sha256": built["tree"]}}, *locks],
        "passedTests": by["passed"],
        "warnedTests": [],
        "failedTests": [],
        "skippedTests": by["skipped"],
        "command": ["pytest", *chosen] if chosen else [],
        "package_sha256": package,
    }


def named(test: str) -> str:
    """A test's name in ASCII; one that is very long by its beginning and its SHA-256."""
    name = ascii(test)[1:-1]
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]} sha256:{sha256_hex(name.encode())}"


def _surface(wheel: Path, agent_surface: Digest) -> dict[str, Any]:
    listed = shipped_list()
    report = judge(wheel.name, scan(wheel), parse_list(listed), lambda names: tried(_command, "ironbound", names))
    unread = sorted({f"{one.file}: {one.why}" for one in report.scanned.unread})
    unlisted = [f"{one.kind} {one.name} in {one.place}" for one in report.unlisted or ()]
    active = [f"{one.name} in {one.places[0].place}" for one in report.switches if one.why is None]
    if unread or unlisted or report.verdict == ACTIVE:
        raise Stop("the surface is open: " + "; ".join((unread + unlisted + active)[:10]))
    counts = Counter(
        "explained" if one.why is not None and one.verdict == ACTIVE else one.verdict for one in report.switches
    )
    return {
        "list_sha256": sha256_hex(listed),
        "agent_surface_sha256": agent_surface,
        "verdict": report.verdict,
        "files": sum(report.scanned.kinds.values()),
        "listed": len(parse_list(listed).items),
        "unlisted": len(unlisted),
        "gone": len(report.gone or ()),
        "unread": len(unread),
        "switches": {"active": counts[ACTIVE], "refused": counts[REFUSES], "explained": counts["explained"]},
    }


def _command(words: Sequence[str]) -> tuple[int, str]:
    """The installed command line with these words, in a process forked from this one, which is isolated as it is."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        for stream in (1, 2):
            os.dup2(writes, stream)
        signal.alarm(START_S)
        code = 1
        try:
            sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))
            code = command(words)
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writes)
    with open(reads, encoding="utf-8", errors="replace") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def _install(package: Digest) -> dict[str, Any]:
    words = [sys.executable, "-I", "-B", "-m", "ironbound.supply.manifest"]
    done = subprocess.run(words, env=dict(ENVIRONMENT), capture_output=True, check=False)
    if done.returncode:
        raise Stop(done.stderr.decode("utf-8", "replace")[-2000:])
    predicate: dict[str, Any] = json.loads(done.stdout)  # noqa: TID251 - our own process's, of this run
    if predicate["package_sha256"] != package:
        raise Stop("what was measured is not the wheel")
    return predicate


def _write(dist: Path, out: Path, predicates: dict[str, dict[str, Any]], key: PrivateKey) -> None:
    """Everything is signed before anything is written, and each file takes its place at once."""
    made = {file.name: file.read_bytes() for file in sorted(dist.iterdir())}
    sums = {name: sha256_hex(data) for name, data in made.items()}
    wheel = {name: sha256 for name, sha256 in sums.items() if name.endswith(".whl")}
    for kind in PREDICATES:
        subjects = sums if kind == "provenance" else wheel
        try:
            made[f"{kind}.dsse.json"] = sign_release(kind, subjects, predicates[kind], key)
            read_signed(made[f"{kind}.dsse.json"], key.public)
        except FormatError as error:
            raise Stop(f"what was found can't be signed: {error}") from error
    put(made, out, key.public)


def put(made: dict[str, bytes], out: Path, key: PublicKey) -> None:
    """Writes a release's files and its key's public half into a folder, in place of another release's."""
    made = made | {"release.pub": canonical(key_entry(key)) + b"\n", "release.pem": key.pem()}
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("ironbound-*.whl"), *out.glob("ironbound-*.tar.gz")):
        if old.name not in made:
            old.unlink()
    for name, data in made.items():
        with tempfile.NamedTemporaryFile(dir=out, prefix=".", delete=False) as file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, out / name)
