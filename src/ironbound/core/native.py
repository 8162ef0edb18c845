"""Native agents: what their module is, and the plan that the guard carries out inside the sandbox.

A native agent's module is a manifest: which root file system, by tree digest, and which program in it. Decides
whether a manifest is well formed, and writes the plan (limits, filter, environment, program) that follows from an
effective configuration and a manifest. It starts nothing; `node/native` hands the plan to the guard in a sealed
memory file, and the verifier derives it again.

Rule 1: a manifest is accepted only as its own canonical JSON, so it has one digest.
Rule 2: a plan is a pure function of configuration, manifest, runtime and nonce; nothing of the host is in it.
Rule 3: no value may hold a line feed or a zero byte, so a line of the plan can't become two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical
from ironbound.core.limits import RLIMIT_NUMBERS, native_rlimits
from ironbound.core.seccomp import native_filter

FORMAT: Final = "ironbound-agent/v1"
PLAN: Final = "ironbound-plan/v1"
MAX_MANIFEST: Final = 16 * 1024
"""Bytes of a manifest."""
MAX_WORDS: Final = 64
MAX_WORD: Final = 4096
"""Arguments, and variables, and bytes of each."""
GUARD_PATH: Final = ".ironbound/guard"
"""Where the guard lies in every root file system, without the leading slash."""
NONCE_VARIABLE: Final = "IRONBOUND_NONCE"
_LOADER: Final = frozenset({"GCONV_PATH", "GLIBC_TUNABLES"})

#: Runtimes in which the kernel below the guard has Landlock: the host's own, or a virtual machine's.
_LANDLOCKED: Final = frozenset({"bubblewrap", "runc", "crun", "qemu-microvm", "firecracker"})

_FIELDS: Final = frozenset(("argv", "cwd", "env", "format", "rootfs_sha256"))
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}=[^\x00-\x1f\x7f]*")
_NONCE: Final = re.compile(r"[0-9a-f]{32}")
_WORD: Final = re.compile(r"[^\x00\n]*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A native agent: the program `argv` in the root file system with this tree digest."""

    rootfs: Digest
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"

    def encode(self) -> bytes:
        """The canonical bytes whose SHA-256 is approved. FormatError if they are no manifest."""
        data = canonical(
            {
                "argv": list(self.argv),
                "cwd": self.cwd,
                "env": list(self.env),
                "format": FORMAT,
                "rootfs_sha256": self.rootfs,
            }
        )
        parse_manifest(data)
        return data


def is_manifest(module: bytes) -> bool:
    """Whether a module's bytes claim to be a native agent's manifest; a Wasm binary begins with a zero byte."""
    return module[:1] == b"{"


def _words(value: Value, name: str, least: int) -> tuple[str, ...]:
    if not isinstance(value, list) or not least <= len(value) <= MAX_WORDS:
        raise FormatError("manifest-invalid", f"{name}: expected {least} to {MAX_WORDS} strings")
    words = tuple(one for one in value if isinstance(one, str))
    if len(words) != len(value):
        raise FormatError("manifest-invalid", f"{name}: expected strings")
    for word in words:
        if len(word.encode()) > MAX_WORD or _WORD.fullmatch(word) is None:
            raise FormatError("manifest-invalid", f"{name}: expected at most {MAX_WORD} bytes without line feeds")
    return words


def _absolute(path: str, name: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or any(part in (".", "..") for part in parts) or (path != "/" and "" in parts[1:]):
        raise FormatError("manifest-invalid", f"{name}: expected an absolute path without dots, got {path[:80]!r}")
    return path


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in a module's bytes. Raises FormatError."""
    value = parse_canonical(data, limit=MAX_MANIFEST)
    if not isinstance(value, dict) or value.keys() != _FIELDS or value["format"] != FORMAT:
        raise FormatError("manifest-invalid", f"expected {FORMAT} with {', '.join(sorted(_FIELDS))}")
    rootfs = value["rootfs_sha256"]
    if not isinstance(rootfs, str) or _DIGEST.fullmatch(rootfs) is None:
        raise FormatError("manifest-invalid", "rootfs_sha256: expected a SHA-256 digest")
    argv, env = _words(value["argv"], "argv", 1), _words(value["env"], "env", 0)
    names = [word.partition("=")[0] for word in env]
    if any(_VARIABLE.fullmatch(word) is None for word in env) or len(set(names)) != len(names):
        raise FormatError("manifest-invalid", "env: expected NAME=VALUE, each name once")
    if NONCE_VARIABLE in names or any(name.startswith("LD_") for name in names):
        raise FormatError("manifest-invalid", f"env: {NONCE_VARIABLE} and LD_… can't be set")
    cwd = value["cwd"]
    if not isinstance(cwd, str):
        raise FormatError("manifest-invalid", "cwd: expected a string")
    _words([cwd], "cwd", 1)
    return Manifest(Digest(rootfs), (_absolute(argv[0], "argv"), *argv[1:]), env, _absolute(cwd, "cwd"))


def variables(manifest: Manifest, nonce: str | None) -> tuple[str, ...]:
    """The agent's environment, whole: what was approved, and a canary's nonce."""
    return manifest.env if nonce is None else (*manifest.env, f"{NONCE_VARIABLE}={nonce}")


def steers_loader(name: str) -> bool:
    """Whether the dynamic loader or the C library loads or does something else because of a variable."""
    return name.startswith("LD_") or name in _LOADER


def plan(config: Mapping[str, Any], manifest: Manifest, nonce: str | None) -> bytes:
    """What the guard reads from descriptor 5; `nonce` is a canary's. Raises FormatError."""
    if nonce is not None and _NONCE.fullmatch(nonce) is None:
        raise FormatError("plan-invalid", "nonce: expected 32 hexadecimal digits")
    runtime = config["runtime"]["type"]
    lines = [PLAN, f"landlock {'required' if runtime in _LANDLOCKED else 'absent'}"]
    lines += [f"rlimit {RLIMIT_NUMBERS[name]} {value}" for name, value in native_rlimits(config).items()]
    lines.append(f"filter {native_filter().hex()}")
    lines += [f"env {one}" for one in variables(manifest, nonce)]
    lines.append(f"cwd {manifest.cwd}")
    lines += [f"arg {one}" for one in manifest.argv]
    return "".join(f"{line}\n" for line in lines).encode()
