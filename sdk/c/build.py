"""Builds every WebAssembly module that this repository commits, from the source beside it, byte for byte.

Decides the compiler's flags: here, and nowhere else. It does not run the modules and approves nothing.
C needs the `ziglang` package (0.17.1), WAT the `wasmtime` package (50.0.1); the bytes depend on both versions.

Rule 1: the same source gives the same bytes: fixed flags, no names, no debug information, no paths.
Rule 2: nothing beyond the first version of WebAssembly, so that a module needs no feature switched on.

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
EXTRA = {"initial-memory.c": ("-Wl,--initial-memory=4294901760",)}
"""Flags beyond FLAGS, by the source's name."""


def sources() -> list[Path]:
    """Every source that has a committed module: the examples and the canaries."""
    return sorted(path for folder in (EXAMPLES, CANARIES) for path in folder.iterdir() if path.suffix in (".c", ".wat"))


def compile_c(source: Path, target: Path, caches: Path) -> None:
    """Compile one agent with the SDK. CalledProcessError carries the compiler's words on standard error."""
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(caches / "global"),
        "ZIG_LOCAL_CACHE_DIR": str(caches / "local"),
    }
    sdk_source = os.path.relpath(SDK / "ironbound.c", source.parent)
    command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *EXTRA.get(source.name, ())]
    command += [f"-I{SDK}", "-o", str(target), source.name, sdk_source]
    subprocess.run(command, cwd=source.parent, env=environment, check=True)


def compile_wat(source: Path, target: Path) -> None:
    """Turn the text form into the binary one. WasmtimeError names the place of a mistake."""
    import wasmtime

    target.write_bytes(bytes(wasmtime.wat2wasm(source.read_text("utf-8"))))


def build(chosen: Iterable[Path], folder: Path | None) -> list[Path]:
    """Build the chosen sources into the folder, or each beside its source. Returns the modules' paths."""
    built = []
    with tempfile.TemporaryDirectory(prefix="ironbound-build-") as caches:
        for source in chosen:
            target = (folder or source.parent).resolve() / f"{source.stem}.wasm"
            if source.suffix == ".c":
                compile_c(source, target, Path(caches))
                target.chmod(0o644)
            else:
                compile_wat(source, target)
            built.append(target)
    return built


def differing() -> list[str]:
    """The committed modules that the sources no longer give, and those without a source."""
    known = sources()
    with tempfile.TemporaryDirectory(prefix="ironbound-check-") as folder:
        fresh = build(known, Path(folder))
        wrong = [
            f"{source.stem}.wasm"
            for source, module in zip(known, fresh, strict=True)
            if not (committed := source.with_suffix(".wasm")).is_file() or committed.read_bytes() != module.read_bytes()
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
    parser.add_argument("--check", action="store_true", help="compare the committed modules with fresh ones")
    parser.add_argument("--to", type=Path, help="the folder for the modules; default: beside each source")
    parser.add_argument("source", nargs="*", type=Path, help="default: every example and canary")
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
