"""Builds every WebAssembly module and native program that this repository commits, from the source beside it, byte for
byte.

Decides the compiler's flags: here, and nowhere else. It does not run what it builds and approves nothing.
C needs the `ziglang` package (0.17.1), WAT the `wasmtime` package (50.0.1); the bytes depend on both versions.

Rule 1: the same source gives the same bytes: fixed flags, no names, no debug information, no paths.
Rule 2: nothing beyond the first version of WebAssembly, so that a module needs no feature switched on; but for the
        canaries that try just that.
Rule 3: a native program needs nothing but the kernel: no C library, no loader, the first version of x86-64. No page of
        it is both writable and executable, and its stack is not executable.

    python sdk/c/build.py            builds all of them in place
    python sdk/c/build.py --check    builds them elsewhere and compares; exits with 1 if one differs
    python sdk/c/build.py --to DIR agent.c    builds your own agent
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

SDK = Path(__file__).resolve().parent
REPOSITORY = SDK.parents[1]
EXAMPLES = SDK / "examples"
CANARIES = REPOSITORY / "src" / "ironbound" / "canary" / "modules"

NATIVE = SDK / "native"
PROGRAMS = (
    REPOSITORY / "src" / "ironbound" / "node" / "native" / "guard" / "guard.c",
    REPOSITORY / "src" / "ironbound" / "canary" / "native" / "probe.c",
    REPOSITORY / "src" / "ironbound" / "node" / "microvm" / "init" / "init.c",
)
"""The native programs: each source includes what else it needs and becomes the file of its own name without a suffix."""

FLAGS = (
    "--target=wasm32-freestanding",
    "-mcpu=mvp",
    "-std=c11",
    "-Os",
    "-s",
    "-nostdlib",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-sanitize=undefined",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-incompatible-library-redeclaration",
    "-Wl,--no-entry",
    "-Wl,-z,stack-size=65536",
)
NATIVE_FLAGS = (
    "--target=x86_64-linux-none",
    "-mcpu=x86_64",
    "-std=c11",
    "-Os",
    "-s",
    "-static",
    "-fno-pie",
    "-nostdlib",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-sanitize=undefined",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
    "-fomit-frame-pointer",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,-z,noexecstack",
    "-Wl,--build-id=none",
)
EXTRA = {"initial-memory.c": ("-Wl,--initial-memory=4294901760",)}
"""Flags beyond FLAGS, by the source's name."""
AS_TEXT = ("text-module.wat",)
"""Sources that are their own module."""


def sources() -> list[Path]:
    """Every source that has a committed module or program: the examples, the canaries, the native programs."""
    folders = (EXAMPLES, CANARIES)
    modules = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".c", ".wat"))
    return [*modules, *PROGRAMS]


def name_of(source: Path) -> str:
    """The name of what the source becomes."""
    return source.stem if source in PROGRAMS else f"{source.stem}.wasm"


def compiler(arguments: Sequence[str], folder: Path, caches: Path) -> None:
    """Run the C compiler. CalledProcessError carries its words on standard error."""
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(caches / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(caches / "local"),
    }
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *arguments], cwd=folder, env=environment, check=True)


def compile_c(source: Path, target: Path, caches: Path) -> None:
    """Compile one agent with the SDK."""
    sdk_source = os.path.relpath(SDK / "ironbound.c", source.parent)
    flags = [*FLAGS, *EXTRA.get(source.name, ()), f"-I{SDK}"]
    compiler([*flags, "-o", str(target), source.name, sdk_source], source.parent, caches)


def compile_native(source: Path, target: Path, caches: Path) -> None:
    """Compile one native program."""
    compiler([*NATIVE_FLAGS, f"-I{NATIVE}", "-o", str(target), source.name], source.parent, caches)


def compile_wat(source: Path, target: Path) -> None:
    """Turn the text form into the binary one, but for a source whose text is what it is about.

    WasmtimeError names the place of a mistake.
    """
    import wasmtime

    if source.name in AS_TEXT:
        target.write_bytes(source.read_bytes())
        return
    target.write_bytes(bytes(wasmtime.wat2wasm(source.read_text("utf-8"))))


def build(chosen: Iterable[Path], folder: Path | None) -> list[Path]:
    """Build the chosen sources into the folder, or each beside its source. Returns the modules' paths."""
    built = []
    with tempfile.TemporaryDirectory(prefix="ironbound-build-") as caches:
        for source in chosen:
            target = (folder or source.parent).resolve() / name_of(source)
            if source in PROGRAMS:
                compile_native(source, target, Path(caches))
                target.chmod(0o755)
            elif source.suffix == ".c":
                compile_c(source, target, Path(caches))
                target.chmod(0o644)
            else:
                compile_wat(source, target)
            built.append(target)
    return built


def differing() -> list[str]:
    """The committed modules and programs that the sources no longer give, and modules without a source."""
    known = sources()
    with tempfile.TemporaryDirectory(prefix="ironbound-check-") as folder:
        fresh = build(known, Path(folder))
        wrong = [
            name_of(source)
            for source, built in zip(known, fresh, strict=True)
            if not (committed := source.with_name(name_of(source))).is_file()
            or committed.read_bytes() != built.read_bytes()
        ]
    stems = {(source.parent, source.stem) for source in known}
    for folder_of_modules in (EXAMPLES, CANARIES):
        for module in sorted(folder_of_modules.glob("*.wasm")):
            if (module.parent, module.stem) not in stems:
                wrong.append(module.name)
    return wrong


def main(arguments: Sequence[str]) -> int:
    """The command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Build agents in C for Ironbound.")
    parser.add_argument("--check", action="store_true", help="compare what is committed with fresh builds")
    parser.add_argument("--to", type=Path, help="the folder for the modules; default: beside each source")
    parser.add_argument("source", nargs="*", type=Path, help="default: everything that is committed")
    chosen = parser.parse_args(arguments)
    if chosen.check:
        wrong = differing()
        for name in wrong:
            print(f"build: {name} is not what its source gives", file=sys.stderr)
        return 1 if wrong else 0
    for module in build([path.resolve() for path in chosen.source] or sources(), chosen.to):
        print(f"{module.stat().st_size:8} {module}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
