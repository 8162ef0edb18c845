"""A release is what its source makes of it, wherever it is built, and nothing is signed that was not found so."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ironbound.core.canonical import FormatError, canonical, parse_json, sha256_hex
from ironbound.core.keys import PublicKey, SignatureInvalid
from ironbound.core.release import MAX_SIGNED, PREDICATES, Signed, read_signed
from ironbound.terminal.releases import read_release_folder, release_key
from ironbound.verifier.release import shipped
from ironbound.wire.measure import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "packaging" / "release"
BILL = "ironbound-{}.dist-info/sboms/ironbound.cdx.json"


def make(*words: str | Path, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-I", "-B", str(MAKER), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def sums(folder: Path) -> dict[str, str]:
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(folder.iterdir())}


@dataclass(frozen=True)
class Built:
    """A build: where, with what it said of itself."""

    work: Path
    said: dict[str, Any]

    @property
    def wheel(self) -> Path:
        (wheel,) = (self.work / "dist").glob("*.whl")
        return wheel

    @property
    def sdist(self) -> Path:
        (sdist,) = (self.work / "dist").glob("*.tar.gz")
        return sdist


def built(checkout: Path, work: Path) -> Built:
    done = make("build", checkout, work)
    assert done.returncode == 0, done.stderr
    return Built(work, json.loads((work / "built.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(ROOT, tmp_path_factory.mktemp("first") / "w")


@pytest.fixture(scope="module")
def elsewhere(first: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same source on another path, of another age, unpacked under another umask, and without git."""
    place = tmp_path_factory.mktemp("else where") / "deeper" / "ironbound"
    shutil.copytree(first.work / "source", place)
    for one in place.rglob("*"):
        one.chmod(one.stat().st_mode & ~0o077)
        os.utime(one, (10**9, 10**9))
    return place


def test_two_builds_on_two_paths_are_the_same_bytes_and_one_changed_byte_of_source_changes_both(
    first: Built, elsewhere: Path, tmp_path: Path
) -> None:
    # The time of the last commit stands in every archive; without git it is a fixed one.
    again = built(first.work / "source", tmp_path / "again")
    there = built(elsewhere, tmp_path / "there")
    assert there.said == again.said
    assert there.said["tree"] == first.said["tree"]
    assert sums(there.work / "dist") == sums(again.work / "dist")
    with (elsewhere / "src" / "ironbound" / "py.typed").open("a") as file:
        file.write("\n")
    other = built(elsewhere, tmp_path / "other")
    assert other.said["tree"] != first.said["tree"]
    assert not set(sums(other.work / "dist").values()) & set(sums(there.work / "dist").values())


def test_the_wheel_of_the_source_distribution_is_the_wheel(first: Built, tmp_path: Path) -> None:
    with tarfile.open(first.sdist) as archive:
        for member in archive:
            held = archive.extractfile(member)
            assert held is not None and ".." not in member.name
            file = tmp_path / member.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(held.read())
            file.chmod(member.mode)
    (source,) = tmp_path.iterdir()
    words = [sys.executable, "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "d")]
    environment = {"PATH": os.defpath, "SOURCE_DATE_EPOCH": str(first.said["epoch"])}
    subprocess.run(words, cwd=source, env=environment, check=True, capture_output=True, timeout=120)
    assert sums(tmp_path / "d") == {first.wheel.name: sums(first.work / "dist")[first.wheel.name]}


def test_the_wheel_holds_each_file_of_the_package_and_none_beside(first: Built) -> None:
    source = first.work / "source" / "src"
    with zipfile.ZipFile(first.wheel) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist() if name.startswith("ironbound/")}
    wanted = {str(one.relative_to(source)): one.read_bytes() for one in source.rglob("*") if one.is_file()}
    assert held == wanted
    assert shipped(first.wheel).release == shipped(source / "ironbound").release


def git(place: Path, *words: str) -> None:
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(place), *names, *words], check=True, capture_output=True, timeout=60)


def test_a_checkout_is_its_commit_until_a_file_differs_and_what_is_ignored_is_not_in_it(tmp_path: Path) -> None:
    said = _copier()
    place = tmp_path / "checkout"
    place.mkdir()
    git(place, "init")
    (place / ".gitignore").write_text("secret\n")
    (place / "a").write_text("a")
    git(place, "add", ".")
    git(place, "commit", "-m", "a", "--date", "2026-01-02T03:04:05Z")
    (place / "secret").write_text("s")
    clean = said(place, tmp_path / "one")
    assert clean.commit is not None and not clean.changed
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == [".gitignore", "a"]
    (place / "new").write_text("n")
    changed = said(place, tmp_path / "two")
    assert (changed.commit, changed.changed, changed.epoch) == (clean.commit, True, clean.epoch)
    assert changed.tree != clean.tree and (tmp_path / "two" / "new").is_file()
    (place / "link").symlink_to("secret")
    with pytest.raises(ValueError, match="link is no regular file"):
        said(place, tmp_path / "three")


def _copier() -> Callable[[Path, Path], Any]:
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        from release.source import copied
    finally:
        sys.path.pop(0)

    def copy(root: Path, into: Path) -> Any:
        into.mkdir()
        return copied(root, into)

    return copy


# The bill of materials


def locked() -> dict[str, set[str]]:
    """Each requirement of the lock with its hashes, read another way than the builder's."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / "runtime.txt").read_text("utf-8").splitlines():
        if "==" in line:
            found[line.removesuffix(" \\")] = set()
        elif "--hash=sha256:" in line:
            found[list(found)[-1]].add(line.strip().removeprefix("--hash=sha256:").removesuffix(" \\"))
    return found


def lacking(bill: dict[str, Any]) -> set[str]:
    """What the lock has and the bill has not, or not with these hashes."""
    said = {
        f"{one['name']}=={one['version']}": {entry["content"] for entry in one["hashes"] if entry["alg"] == "SHA-256"}
        for one in bill["components"]
    }
    return {name for name, hashes in locked().items() if said.get(name) != hashes} | (said.keys() - locked().keys())


def flaws(bill: dict[str, Any]) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))


def test_the_wheels_bill_is_cyclonedx_and_names_every_locked_package_with_its_hashes(first: Built) -> None:
    version = first.wheel.name.split("-")[1]
    with zipfile.ZipFile(first.wheel) as wheel:
        bill: Any = parse_json(wheel.read(BILL.format(version)), limit=1 << 20)
    assert flaws(bill) is None
    assert lacking(bill) == set() and len(locked()) > 15
    refs = {one["bom-ref"] for one in bill["components"]} | {bill["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in bill["dependencies"]} == refs
    reached = [bill["metadata"]["component"]["bom-ref"]]
    needs = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    for ref in reached:
        reached += [one for one in needs[ref] if one not in reached]
    assert set(reached) == refs
    # and a bill that lacks one, or is none, is seen
    dropped = {**bill, "components": bill["components"][1:]}
    assert len(lacking(dropped)) == 1
    assert flaws({**bill, "maker": "x"}) is not None


# What is signed


@pytest.fixture(scope="module")
def python(first: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in an environment of its own, with the requirements of this one beside it."""
    place = tmp_path_factory.mktemp("host") / "env"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    python = place / "bin" / "python"
    done = make("install", first.work, python=python)
    assert done.returncode == 0, done.stderr
    (site(python) / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def site(python: Path) -> Path:
    (found,) = (python.parent.parent / "lib").glob("python3.*/site-packages")
    return found


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "release-key.pem"
    done = make("key", file)
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    return file


def sign(first: Built, python: Path, key: Path, out: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    return make("sign", first.work, out, sysconfig.get_path("purelib"), key, *tests, python=python)


@pytest.fixture(scope="module")
def release(first: Built, python: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "dist"
    done = sign(first, python, key, out, "tests/core/test_merkle.py", "tests/core/test_release_signed.py")
    assert done.returncode == 0, done.stderr
    return out


def public(release: Path) -> PublicKey:
    return PublicKey.from_pem((release / "release.pem").read_bytes())


def statements(release: Path) -> Iterator[tuple[str, bytes, Signed]]:
    for kind in PREDICATES:
        data = (release / f"{kind}.dsse.json").read_bytes()
        yield kind, data, read_signed(data, public(release))


@pytest.mark.slow
def test_each_statement_is_about_this_very_wheel_and_a_flipped_byte_ends_it(release: Path) -> None:
    (wheel,) = release.glob("*.whl")
    (sdist,) = release.glob("*.tar.gz")
    for kind, data, signed in statements(release):
        assert signed.kind == kind
        assert signed.wheel == sha256_hex(wheel.read_bytes())
        wanted = {wheel.name, sdist.name} if kind == "provenance" else {wheel.name}
        assert signed.subjects.keys() == wanted
        for position in range(0, len(data), len(data) // 23):
            with pytest.raises((FormatError, SignatureInvalid)):
                read_signed(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :], public(release))


@pytest.mark.slow
def test_what_is_said_is_what_is_there(first: Built, python: Path, release: Path) -> None:
    said = {kind: signed.predicate for kind, _, signed in statements(release)}
    (wheel,) = release.glob("*.whl")
    # the provenance names every locked requirement, and no more than Build L1
    resolved = said["provenance"]["buildDefinition"]["resolvedDependencies"]
    hashes = {one["digest"]["sha256"] for one in resolved}
    assert set().union(*locked().values()) <= hashes
    assert first.said["tree"] in hashes
    assert said["provenance"]["runDetails"]["builder"]["id"].endswith("/builder/local/v1")
    # the tests ran, and those that passed stand there by name
    assert said["tests"]["result"] == "PASSED"
    assert said["tests"]["package_sha256"] == shipped(wheel).release
    assert "tests/core/test_merkle.py::test_proofs_verify_in_larger_trees" in said["tests"]["passedTests"]
    # the surface is closed, and the agent's is the one in the wheel
    assert (said["surface"]["unlisted"], said["surface"]["unread"]) == (0, 0)
    assert said["surface"]["agent_surface_sha256"] == shipped(wheel).surface
    # the manifest has each installed file by its digest, and the C library
    files = said["install"]["files"]
    package = site(python) / "ironbound"
    for one in package.rglob("*.py"):
        assert files[f"site/{one.relative_to(site(python))}"] == sha256_hex(one.read_bytes())
    assert any(path.startswith("lib/") and "/libc.so" in path for path in files)
    assert {"python", "stdlib/os.py", "site/requirements.pth"} <= files.keys()
    assert said["install"]["package_sha256"] == shipped(wheel).release


@pytest.mark.slow
def test_a_failing_test_ends_the_release_and_nothing_is_signed(
    first: Built, python: Path, key: Path, tmp_path: Path
) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text("def test_it() -> None:\n    import ironbound\n    assert not ironbound.__version__\n")
    done = sign(first, python, key, tmp_path / "out", str(failing))
    assert done.returncode == 1
    assert "tests of the installed wheel failed" in done.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_run_the_statement_says_so(first: Built) -> None:
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        from release.sign import MAX_NAME, named, tests_of
    finally:
        sys.path.pop(0)
    said = tests_of(None, first.said, first.work, shipped(first.wheel).release, [])
    assert (said["result"], said["passedTests"], said["command"]) == ("WARNED", [], [])
    assert named("t[\u00e9]") == "t[\\xe9]"
    assert named("a" * 5000) != named("a" * 5001) and len(named("a" * 5000)) < MAX_NAME + 80


def test_an_installation_that_is_not_the_wheel_and_a_key_that_others_can_read_sign_nothing(
    first: Built, python: Path, key: Path, tmp_path: Path
) -> None:
    victim = site(python) / "ironbound" / "core" / "merkle.py"
    before = victim.read_bytes()
    try:
        victim.write_bytes(before + b"\n# x\n")
        changed = sign(first, python, key, tmp_path / "out", "none")
    finally:
        victim.write_bytes(before)
    assert changed.returncode == 1 and f"is not {first.wheel.name}" in changed.stderr
    key.chmod(0o640)
    try:
        shared = sign(first, python, key, tmp_path / "out", "none")
    finally:
        key.chmod(0o600)
    assert shared.returncode == 1 and "open to others" in shared.stderr
    assert make("key", key).returncode == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", PREDICATES)
def test_openssl_checks_each_statement_by_the_documents_own_commands(release: Path, tmp_path: Path, kind: str) -> None:
    document = (ROOT / "docs" / "release.md").read_text("utf-8")
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", document, re.DOTALL | re.MULTILINE))
    place = tmp_path / "dist"
    shutil.copytree(release, place)

    def checked() -> subprocess.CompletedProcess[str]:
        words = ["sh", "-eu", "-c", script.replace("K=tests", f"K={kind}")]
        return subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=60, check=False)

    done = checked()
    assert done.returncode == 0, done.stderr
    verified, keyid, raw, entry, count = done.stdout.splitlines()
    assert "Signature Verified Successfully" in verified
    assert keyid == public(release).keyid and raw in entry and int(count) >= 1
    file = place / f"{kind}.dsse.json"
    data = file.read_bytes()
    file.write_bytes(data[:40] + (b"B" if data[40:41] == b"A" else b"A") + data[41:])
    assert checked().returncode != 0


# For another host


@pytest.fixture(scope="module")
def elsewhere_measured(python: Path) -> dict[str, Any]:
    """What another host prints: another interpreter and C library than where the release was made."""
    words = [str(python), "-I", "-B", "-m", "ironbound.supply.manifest"]
    done = subprocess.run(words, capture_output=True, check=True, timeout=60, env=dict(ENVIRONMENT))
    found: dict[str, Any] = parse_json(done.stdout, limit=MAX_SIGNED)
    (libc,) = (path for path in found["files"] if path.startswith("lib/") and "/libc.so" in path)
    other = {"python": sha256_hex(b"python"), libc: sha256_hex(b"libc"), "lib/usr/lib/libodd.so": sha256_hex(b"odd")}
    return found | {"files": found["files"] | other}


def for_host(measured: bytes, release: Path, out: Path, key: Path) -> subprocess.CompletedProcess[str]:
    file = out.parent / "measured.json"
    file.write_bytes(measured)
    return make("host", file, release, out, key)


@pytest.mark.slow
def test_what_another_host_measured_is_signed_here_beside_the_release_s_other_statements(
    elsewhere_measured: dict[str, Any], release: Path, key: Path, tmp_path: Path
) -> None:
    out = tmp_path / "host"
    done = for_host(canonical(elsewhere_measured) + b"\n", release, out, key)
    assert done.returncode == 0, done.stderr
    for line in ("added in lib: lib/usr/lib/libodd.so", "changed in python: python", "changed in lib: lib/"):
        assert line in done.stderr
    statements = read_release_folder(out, release_key(out))
    assert read_signed(statements["install"], public(release)).predicate == elsewhere_measured
    assert {kind for kind, data in statements.items() if (release / f"{kind}.dsse.json").read_bytes() != data} == {
        "install"
    }
    assert sums(out).keys() == sums(release).keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        ("site/ironbound/core/rule.py", b"x", "site/ironbound/core/rule.py differs"),
        ("site/ironbound/core/rule.py", None, "site/ironbound/core/rule.py differs"),
        ("site/ironbound/core/later.py", b"x", "is not in the wheel"),
        ("site/ironbound/later.pyc", b"x", "is not in the wheel"),
        ("site/ironbound/core/__pycache__/later.cpython-313.pyc", b"x", "is not in the wheel"),
        ("site/added.pth", b"x", "runs at every start"),
        ("site/sitecustomize.py", b"x", "runs at every start"),
        ("site/usercustomize/__init__.py", b"x", "runs at every start"),
        ("site/sitecustomize.abi3.so", b"x", "runs at every start"),
        ("stdlib/../x.py", b"x", "no path of an installed file"),
    ],
)
def test_what_is_not_this_release_is_not_signed_for_another_host(
    elsewhere_measured: dict[str, Any], release: Path, key: Path, tmp_path: Path, path: str, content: bytes | None,
    said: str,
) -> None:  # fmt: skip
    files = dict(elsewhere_measured["files"])
    files.pop(path, None)
    if content is not None:
        files[path] = sha256_hex(content)
    done = for_host(canonical(elsewhere_measured | {"files": files}), release, tmp_path / "host", key)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert not (tmp_path / "host").exists()


@pytest.mark.slow
def test_for_another_host_nothing_is_signed_with_another_key_or_of_another_wheel_or_over_the_release(
    elsewhere_measured: dict[str, Any], release: Path, key: Path, tmp_path: Path
) -> None:
    measured = canonical(elsewhere_measured)
    other = tmp_path / "other.pem"
    assert make("key", other).returncode == 0
    done = for_host(measured, release, tmp_path / "host", other)
    assert done.returncode == 1 and "is not signed by this key" in done.stderr
    before = sums(release)
    assert make("host", tmp_path / "measured.json", release, release, key).returncode == 1
    assert sums(release) == before
    place = tmp_path / "dist"
    shutil.copytree(release, place)
    (wheel,) = place.glob("*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = for_host(measured, place, tmp_path / "host", key)
    assert done.returncode == 1 and "is not the statement" in done.stderr
    done = for_host(canonical(elsewhere_measured | {"version": "9"}), release, tmp_path / "host", key)
    assert done.returncode == 1 and "version is '9'" in done.stderr
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        from release.host import _not_of
    finally:
        sys.path.pop(0)
    compiled = "site/ironbound/core/__pycache__/rule.cpython-311.pyc"
    built, found = ({**elsewhere_measured, "files": {**elsewhere_measured["files"], compiled: one}} for one in "ab")
    assert list(_not_of(next(release.glob("*.whl")), found, elsewhere_measured)) == []  # another Python's
    said = list(_not_of(next(release.glob("*.whl")), found, built))
    assert said == [f"{compiled} is not compiled as the release compiles"]
    done = for_host(b"no JSON", release, tmp_path / "host", key)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "no measurement in" in done.stderr
    assert not (tmp_path / "host").exists()
