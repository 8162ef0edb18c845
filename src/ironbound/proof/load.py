"""Loads the kernel from the bytes of its source, apart from the one that runs: what is digested is what is proved.

Decides nothing. A kernel is loaded from whole files; a seeded bug is another text of one of them. Modules that are not
the kernel's are the installed ones.

Rule 1: nothing of the installed kernel changes: the copy has a name of its own, which goes again once it is loaded.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from importlib.abc import SourceLoader
from importlib.util import module_from_spec, spec_from_loader
from itertools import count
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any, Final

from ironbound.verifier.kernel import KERNEL_SOURCES

_CORE: Final = "ironbound.core"
_numbers = count()


class Kernel(SimpleNamespace):
    """The modules of a loaded kernel, each as an attribute: `authority`, `constraint`, `logic` and the others."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def sources() -> dict[str, str]:
    """The installed kernel's source texts by module."""
    folder = resources.files(_CORE)
    return {name.removesuffix(".py"): (folder / name).read_text(encoding="utf-8") for name in KERNEL_SOURCES}


class _Text(SourceLoader):
    """One module from its text, which is compiled once."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = path, text
        self._code: CodeType | None = None

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str | bytes) -> bytes:
        if path != self._path:
            raise OSError("no such file")
        return self._text.encode("utf-8")

    def get_code(self, fullname: str) -> CodeType | None:
        if self._code is None:
            self._code = super().get_code(fullname)
        return self._code


_loader = lru_cache(64)(_Text)


def load_kernel(texts: Mapping[str, str]) -> Kernel:
    """A kernel of these texts. Whatever loading them raises is raised: a text that doesn't load is no kernel."""
    package = f"ironbound_kernel_{next(_numbers)}"
    made: dict[str, ModuleType] = {}
    before = set(sys.modules)
    try:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = []
        for name in _in_order(texts):
            for needed in _needs(texts[name]):
                if needed not in texts:
                    sys.modules[f"{package}.{needed}"] = importlib.import_module(f"{_CORE}.{needed}")
            full = f"{package}.{name}"
            spec = spec_from_loader(
                full, _loader(f"<kernel>/{name}.py", texts[name].replace(f"{_CORE}.", f"{package}."))
            )
            if spec is None or spec.loader is None:
                raise ImportError(name)
            module = module_from_spec(spec)
            sys.modules[full] = module
            spec.loader.exec_module(module)
            made[name] = module
    finally:
        for name in set(sys.modules) - before:
            if name.split(".")[0] == package:
                del sys.modules[name]
    return Kernel(**made)


@lru_cache(64)
def _needs(text: str) -> tuple[str, ...]:
    """The modules of core that a text imports."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.level == 1:
                found.append(node.module)
            elif node.module.startswith(f"{_CORE}."):
                found.append(node.module.removeprefix(f"{_CORE}."))
    return tuple(found)


def _in_order(texts: Mapping[str, str]) -> list[str]:
    """The modules so that each comes after those that it imports."""
    done: list[str] = []

    def visit(name: str) -> None:
        for needed in _needs(texts[name]):
            if needed in texts and needed not in done:
                visit(needed)
        if name not in done:
            done.append(name)

    for name in texts:
        visit(name)
    return done
