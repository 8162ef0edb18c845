"""A product with every switch that was found in shipped products, planted where products have them; and a clean one."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import wasmtime

OPTIONS = (
    "--dangerously-skip-permissions", "--allow-security-exceptions", "--debug", "--allow-unauthenticated",
    "--allow-unauthenticated-tcp", "--verify-signatures=false", "--confirm-host-access", "--watch", "--interceptor",
)  # fmt: skip
VARIABLES = (
    "ACME_UNSAFE_MODE", "ACME_INSECURE", "ACME_DISABLE_TLS", "ACME_TEST_HTTP_REWRITE_MAP", "ACME_DEV_SECRET__DB",
    "ACME_SKIP_OIDC_DISCOVERY", "ACME_ALLOW_LOCAL_REPLAY_CACHE", "TOOLHIVE_DEV",
)  # fmt: skip
KEYS = (
    "insecure_allow_all", "allow_unauthenticated_users", "allow_uninspected_credentials", "proxy_auth_allow_insecure",
    "enableWeakerNestedSandbox", "ignoreViolations", "fail_open", "retain_last_valid",
)  # fmt: skip
SETTINGS = ("proposal_approval_mode=auto", "tls=skip", "enforcement_mode=audit", "sandbox_mode=best_effort")
INTERPRETER = ("PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "LD_PRELOAD")


def _command_line() -> str:
    lines = [f'    parser.add_argument("{one}", action="store_true", help="see the manual")' for one in OPTIONS]
    body = "\n".join(lines)
    return (
        f'"""The command."""\nimport argparse\n\n\ndef parse(words):\n    parser = argparse.ArgumentParser()\n{body}\n'
    )


def _environment() -> str:
    reads = (
        'os.environ.get("{}")', 'os.environ["{}"]', 'os.getenv("{}", "")', 'e.get("{}")', '"{}" in os.environ',
        'os.environ.pop("{}", None)', 'getenv("{}")', 'e["{}"]',
    )  # fmt: skip
    lines = [
        f"V{number} = {read.format(name)}" for number, (read, name) in enumerate(zip(reads, VARIABLES, strict=True))
    ]
    return "import os\nfrom os import environ as e, getenv\n\n" + "\n".join(lines) + "\n"


def _keys() -> str:
    reads = [f'    yield config["{one}"]' if number % 2 else f'    yield settings.get("{one}")'
             for number, one in enumerate(KEYS)]  # fmt: skip
    return "def read(config, settings):\n" + "\n".join(reads) + "\n"


SERVER = """
import importlib
import sys


def handle(self, frame, app):
    verb = frame.get("op")
    if verb == "grant":
        return getattr(self, frame["name"])
    match frame["method"]:
        case "reload_policy":
            return eval(frame["text"])


@app.post("/admin/policy")
def policy(request):
    return eval(request.query["rule"])


def load():
    name = sys.argv[1]
    return importlib.import_module(name)
"""

GO = """package main

// --dangerously-skip-permissions is only mentioned here
func main() {
    flag.Bool("allow-unauthenticated", false, "for tests")
    if os.Getenv("ACME_SKIP_OIDC_DISCOVERY") != "" { failOpen = true }
    mux.HandleFunc("/debug/policy", override)
}
"""


def _c() -> str:
    names = ",\n  ".join(f'"{one}"' for one in (*OPTIONS, *VARIABLES, *KEYS, *SETTINGS))
    return (
        "char *getenv(const char *);\nint system(const char *);\n"
        f"static const char *const names[] = {{\n  {names}\n}};\n"
        "const char *pick(int i) { return system(names[i]) ? names[i + 1] : getenv(names[i]); }\n"
    )


def compiled(source: str, into: Path) -> None:
    """A shared library from C."""
    code = into.with_suffix(".c")
    code.write_text(source)
    words = ["cc", "-target", "x86_64-linux-gnu", "-shared", "-nostdlib", "-fPIC", "-O1", "-o", str(into), str(code)]
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(into.parent / "cache"), "ZIG_LOCAL_CACHE_DIR": str(into.parent / "cache")}
    subprocess.run([sys.executable, "-m", "ziglang", *words], check=True, timeout=120, env={**os.environ, **cache})
    subprocess.run(["rm", "-rf", str(into.parent / "cache"), str(code)], check=True)


def _wasm() -> bytes:
    names = "\\00".join((*OPTIONS, *VARIABLES, *KEYS, *SETTINGS))
    text = (
        f'(module (import "acme" "disable_sandbox" (func)) (memory (export "memory") 1) (data (i32.const 8) "{names}"))'
    )
    return bytes(wasmtime.wat2wasm(text))


def plant(root: Path) -> Path:
    """The product in a folder that is made."""
    for folder in ("acme", "legacy", "native", "deploy", "bin", "lib/site-packages/acme-1.dist-info"):
        (root / folder).mkdir(parents=True)
    (root / "acme" / "__init__.py").write_text("")
    (root / "acme" / "cli.py").write_text(_command_line())
    (root / "acme" / "environment.py").write_text(_environment())
    (root / "acme" / "keys.py").write_text(_keys())
    (root / "acme" / "server.py").write_text(SERVER)
    source = root / "legacy" / "old.py"
    source.write_text(_command_line() + _environment() + _keys())
    py_compile.compile(str(source), cfile=str(root / "legacy" / "old.pyc"), doraise=True)
    source.unlink()
    compiled(_c(), root / "native" / "libacme.so")
    (root / "native" / "acme.wasm").write_bytes(_wasm())
    lines = [f"{one} = true" for one in KEYS] + [
        "[proposal]",
        'approval_mode = "auto"',
        "[enforcement]",
        'mode = "relaxed"',
    ]
    (root / "deploy" / "policy.toml").write_text("\n".join(lines) + "\n")
    (root / "deploy" / "values.yaml").write_text(
        "server:\n  tls: skip\n  sandbox:\n    mode: best_effort\n  image_override: x\n"
    )
    (root / "deploy" / "settings.json").write_text(
        '{\n "sandbox": {"enableWeakerNestedSandbox": true},\n "ignoreViolations": {}\n}\n'
    )
    (root / "deploy" / "Dockerfile").write_text(
        'FROM scratch\nENV PYTHONPATH=/opt/x\nENTRYPOINT ["/srv", "--allow-unauthenticated"]\n'
    )
    (root / "deploy" / "acme.service").write_text(
        "[Service]\nEnvironment=LD_PRELOAD=/opt/x.so\nExecStart=/srv --debug\n"
    )
    (root / "bin" / "run").write_text("#!/bin/sh\nexport PYTHONSTARTUP=/opt/x.py\nPYTHONINSPECT=1 exec acme --watch\n")
    (root / "bin" / "fast").write_text("#!/usr/bin/python3 -O\nimport acme\n")
    (root / "bin" / "main.go").write_text(GO)
    site = root / "lib" / "site-packages"
    (site / "sitecustomize.py").write_text("import acme\n")
    (site / "acme.pth").write_text("import acme.hook; acme.hook.run()\n")
    (site / "acme-1.dist-info" / "entry_points.txt").write_text("[console_scripts]\nacme = acme.cli:main\n")
    return root


ORDINARY_PYTHON = '''"""An ordinary module. Run it with --debug to see more.

Unsafe and insecure setups are refused, and we never fail open or skip verification.
"""

import json
import logging
import os
import sys

log = logging.getLogger(__name__)
HOME = os.environ.get("HOME", "/")
LEVELS = ("debug", "info", "audit")  # --dangerously-skip-permissions is not one


class Watcher:
    """Watches a folder; skips what it can't read."""

    def __init__(self, mode="auto", tls=None, verify=True):
        self.mode, self.tls, self.verify = mode, tls, verify
        self.unsafe_characters = frozenset("<>")

    def watch(self, path):
        log.debug("watching %s; allow-unauthenticated is no option of ours", path)
        return [one for one in os.listdir(path) if not self.skip(one)]

    def skip(self, name):
        return name.startswith(".") or name in ("audit", "auto", "relaxed")


def verify_signature(data, signature, audit=None):
    if data["kind"] == "relaxed":
        raise ValueError("relaxed rules are unsafe here: signature verification can't be disabled")
    return json.loads(data["body"])


def main(argv=None):
    return Watcher(mode="best_effort").watch((argv or sys.argv)[1])


if __name__ == "__main__":
    sys.exit(main())
'''
ORDINARY_C = """
const char *levels[] = {"debug", "audit", "relaxed", "auto", "unsafe", "insecure", "skip", "verify_signature"};
const char *pick(int i) { return i ? levels[i] : "connection is insecure: refusing to disable verification"; }
"""


def plain(root: Path) -> Path:
    """A product without a switch, in a folder that is made."""
    root.mkdir()
    (root / "watcher.py").write_text(ORDINARY_PYTHON)
    (root / "old.py").write_text(ORDINARY_PYTHON)
    py_compile.compile(str(root / "old.py"), cfile=str(root / "old.pyc"), doraise=True)
    (root / "old.py").unlink()
    compiled(ORDINARY_C, root / "libplain.so")
    (root / "config.yaml").write_text(
        "# tls: skip\nlogging:\n  mode: auto\n  level: debug\ntheme: relaxed\naudit: /var/log/audit\nwatch:\n  - src\n"
        "tls:\n  verify: true\npolicy: strict\nsandbox: { mode: enforce }\nimage: plain:1\n"
    )
    (root / "main.go").write_text(
        "package main\n/* failOpen and skipVerify were removed */\n"
        'func main() { log.Debug("auto", os.Getenv("HOME")) }\n'
    )
    (root / "README.md").write_text("We have no --dangerously-skip-permissions and never fail_open.\n")
    return root
