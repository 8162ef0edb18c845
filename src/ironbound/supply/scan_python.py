"""The surface of Python source, read from its syntax tree; nothing is imported or run.

Decides what in a file takes something from outside: options, the command line, environment variables, configuration
keys, routes, verbs, entry points, and lookups whose target is known only when it runs. It follows names through
imports (`from os import environ as e`), and what came from outside through the assignments of one function. What it
can't follow it reports as a use of everything (`environment *`), never as nothing.

Rule 1: a documentation string, a comment and a sentence are no findings: they switch nothing.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, Final

from .scan_found import Sink
from .scan_made import MADE, disguised, made
from .scan_words import setting, strong, switch

_DECLARES: Final = frozenset(("add_argument", "add_option", "option", "Option", "add_flag", "flag", "Argument"))
_DEFINES: Final = re.compile(r"DEFINE_[a-z_]+")
"""Of absl: the option's name is the first argument, without dashes."""
_ROUTES: Final = frozenset(
    "get post put delete patch head options route websocket websocket_route add_route add_url_rule add_api_route "
    "Route WebSocketRoute Mount mount add_get add_post add_put add_delete add_patch re_path path api_route".split()
)
_VERBS: Final = frozenset("method rpc rpc_method command register_method add_method add_command tool action".split())
_DISPATCHED: Final = frozenset("op method verb command cmd action rpc operation what".split())
_CONFIGS: Final = frozenset(
    "config conf cfg configuration settings setting options opts profile policy params preferences prefs runtime "
    "defaults toml section spec manifest".split()
)
_TABLES: Final = re.compile(r"_?[A-Z0-9_]*(KEYS|OPTIONS|SETTINGS|DEFAULTS|CONFIG|LIMITS)[A-Z0-9_]*")
_LOADS: Final = frozenset(
    ("tomllib.loads", "tomllib.load", "tomli.loads", "tomli.load", "yaml.safe_load", "yaml.load", "json.load",
     "configparser.ConfigParser", "configparser.RawConfigParser")
)  # fmt: skip
_ENV: Final = frozenset(("os.environ", "os.environb"))
_GETENV: Final = frozenset(("os.getenv", "os.getenvb", "os.unsetenv", "os.putenv"))
_RUNS: Final = frozenset(
    ("eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path", "runpy.run_module",
     "importlib.metadata.entry_points", "pkg_resources.iter_entry_points", "pickle.load", "pickle.loads",
     "marshal.load", "marshal.loads", "dill.loads", "cloudpickle.loads", "yaml.load", "yaml.unsafe_load", "os.system",
     "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "ctypes.CDLL", "ctypes.cdll.LoadLibrary",
     "code.interact", "pdb.set_trace", "breakpoint", "globals", "locals", "vars", "sys.settrace",
     "importlib.util.spec_from_file_location", "site.addsitedir")
)  # fmt: skip
_CONSTANT_IS_PLAIN: Final = frozenset(("__import__", "importlib.import_module", "ctypes.CDLL", "compile"))
"""With a constant as argument they are no lookup."""
_EXECUTES: Final = frozenset(
    ("eval", "exec", "compile", "__import__", "importlib.import_module", "pickle.load", "pickle.loads", "os.system",
     "os.popen", "marshal.loads", "yaml.load", "yaml.unsafe_load", "subprocess.getoutput", "runpy.run_path", "getattr",
     "ctypes.CDLL")
)  # fmt: skip
_OUTSIDE: Final = frozenset(("sys.argv", "os.environ", "os.environb", "sys.stdin"))
_OUTSIDE_CALLS: Final = frozenset(("input", "os.getenv", "os.getenvb", "json.load", "json.loads"))
_REQUESTS: Final = frozenset(("request", "req", "websocket"))
_FLAG: Final = re.compile(r"--[A-Za-z][A-Za-z0-9_.-]*(=.*)?")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/=-]{3,100}")
_BODIES: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def scan_source(data: bytes, sink: Sink) -> bool:
    """Adds what the source has to the sink; False if it is no Python that this interpreter can parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
        _Reader(sink).module(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def text_of(node: ast.AST | None) -> str | None:
    """The text of a constant; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value if isinstance(node.value, str) else node.value.decode("latin-1")
    return None


class _Reader:
    """One file: its imports' names, and what is found."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.names: dict[str, str] = {}
        self.quiet: set[int] = set()  # ids of constants that are something else already, or documentation
        self.configs: set[str] = set()
        self.outside: set[str] = set()
        self.scope = ""
        self.texts: dict[str, str] = {}  # the module's names for one text each

    def text(self, node: ast.AST | None) -> str | None:
        """The text of a constant, or of what is made of constants alone."""
        found = text_of(node)
        return made(node, self.texts) if found is None and isinstance(node, (*MADE, ast.Name)) else found

    def add(self, kind: str, name: str, node: ast.AST, rule: str = "") -> None:
        self.sink.add(kind, name, getattr(node, "lineno", 0), rule or switch(kind, name))

    def named(self, node: ast.AST, kind: str, constant: ast.AST) -> None:
        if (text := self.text(constant)) is not None:
            self.quiet.add(id(constant))
            self.add(kind, text, node)

    def full(self, node: ast.AST) -> str:
        """The dotted name of an expression, with imported names written out; empty if it has none."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (base := self.full(node.value)):
            return f"{base}.{node.attr}"
        return ""

    def module(self, tree: ast.Module) -> None:
        self.imports(tree)
        self.constants(tree)
        self.body(tree.body, "")

    def constants(self, tree: ast.Module) -> None:
        """The module's names that are given one text, once."""
        twice = set()
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                for one in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(one, ast.Name):
                        if one.id in self.texts:
                            twice.add(one.id)
                        if (text := text_of(node.value)) is not None and len(text) <= 100:
                            self.texts[one.id] = text
        for name in twice:
            del self.texts[name]

    def imports(self, tree: ast.Module) -> None:
        stack: list[Any] = [tree]
        while stack:  # statements only: no expression has an import or a body
            node = stack.pop()
            stack.extend(one for part in _STATEMENTS for one in getattr(node, part, ()))
            if isinstance(node, ast.Import):
                for one in node.names:
                    if one.asname:
                        self.names[one.asname] = one.name
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for one in node.names:
                    self.names[one.asname or one.name] = f"{node.module}.{one.name}"
            if isinstance(node, _BODIES) and node.body and isinstance(node.body[0], ast.Expr):
                self.quiet.add(id(node.body[0].value))

    def body(self, statements: list[ast.stmt], scope: str) -> None:
        """Walks a scope; functions and classes inside it are scopes of their own, with the outer one's names."""
        self.scope = scope
        inner: list[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]] = []
        stack: list[ast.AST] = list(reversed(statements))
        while stack:
            node = stack.pop()
            if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
                inner.append((node, f"{scope}.{node.name}" if scope else node.name))
                stack.extend(reversed(node.decorator_list))
                self.decorated(node)
                if isinstance(node, ast.ClassDef):
                    stack.extend(node.bases)
                    if any(_last(one).endswith("Settings") for one in node.bases):
                        self.fields(node)
                else:
                    self.parameters(node.args)
                    stack.extend(one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None)
                continue
            kind = type(node)
            if (method := _VISITS.get(kind)) is not None:
                method(self, node)
            for part in _PARTS[kind] if kind in _PARTS else _parts(kind):
                value = getattr(node, part, None)
                if type(value) is list:
                    stack.extend([one for one in reversed(value) if isinstance(one, ast.AST)])
                elif isinstance(value, ast.AST):
                    stack.append(value)
        for one, name in inner:
            before = self.configs.copy(), self.outside.copy()
            if isinstance(one, _FUNCTIONS):
                named = [*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs]
                self.outside |= {argument.arg for argument in named if argument.arg in _REQUESTS}
            self.body(one.body, name)
            self.configs, self.outside = before

    # What the kinds of nodes give

    def decorated(self, node: ast.stmt) -> None:
        for one in node.decorator_list:  # type: ignore[attr-defined]
            if isinstance(one, ast.Call) and one.args:
                last = _last(one.func)
                if last in _ROUTES and (text_of(one.args[0]) or "").startswith("/"):
                    self.named(one, "route", one.args[0])
                elif last in _VERBS:
                    self.named(one, "verb", one.args[0])

    def fields(self, node: ast.ClassDef) -> None:
        """Of pydantic's settings: a field is read from the variable of its name."""
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                self.add("environment", one.target.id.upper(), one)

    def parameters(self, arguments: ast.arguments) -> None:
        placed = [*arguments.posonlyargs, *arguments.args]
        defaults: list[ast.expr | None] = [None] * (len(placed) - len(arguments.defaults)) + list(arguments.defaults)
        both = zip([*placed, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True)
        for one, default in both:
            self.parameter(one.arg, default, one)

    def parameter(self, name: str, value: ast.AST | None, node: ast.AST) -> None:
        """A parameter, field or keyword: by its name, or by its name with a constant."""
        rule = strong(name)
        if not rule and isinstance(value, ast.Constant) and isinstance(value.value, (str, bool)):
            rule = setting(name, str(value.value))
        if rule:
            shown = f"{name}={value.value!r}" if isinstance(value, ast.Constant) else name
            self.add("parameter", shown, node, rule)

    def call(self, node: ast.Call) -> None:
        name, last = self.full(node.func), _last(node.func)
        first = node.args[0] if node.args else None
        if last in _DECLARES:
            for argument in node.args:
                if (self.text(argument) or "").startswith("-"):
                    self.named(node, "option", argument)
        elif _DEFINES.fullmatch(last) and (option := self.text(first)) is not None:
            self.add("option", f"--{option.replace('_', '-')}", node)
        if name in _GETENV or _is_env(name.rpartition(".")[0]):
            self.environment(node, first)
        elif last in _ROUTES and (text_of(first) or "").startswith("/"):
            self.named(node, "route", first)  # type: ignore[arg-type]
        elif last in ("get", "pop", "setdefault", "getboolean", "getint") and isinstance(node.func, ast.Attribute):
            if first is not None and self.is_config(node.func.value):
                self.named(node, "key", first)
        self.dynamic(node, name, last)
        if last in _MAKES:
            self.put_together(node)
        for keyword in node.keywords:
            if keyword.arg in ("envvar", "env", "auto_envvar_prefix") and text_of(keyword.value) is not None:
                self.named(node, "environment", keyword.value)
            elif keyword.arg:
                self.parameter(keyword.arg, keyword.value, keyword.value)

    def environment(self, node: ast.AST, which: ast.AST | None) -> None:
        if self.text(which) is not None:
            self.named(node, "environment", which)  # type: ignore[arg-type]
        else:
            self.add("environment", "*", node)
        value = node.func if isinstance(node, ast.Call) else node
        if isinstance(value, (ast.Attribute, ast.Subscript)):
            self.quiet.add(id(value.value))

    def dynamic(self, node: ast.Call, name: str, last: str) -> None:
        first = node.args[0] if node.args else None
        here = f" in {self.scope}" if self.scope else ""
        attribute = name in ("getattr", "setattr", "delattr", "operator.attrgetter")
        if attribute:
            target = node.args[0 if name == "operator.attrgetter" else 1] if len(node.args) > 1 or first else None
            if target is None or text_of(target) is not None:
                return
            self.add("dynamic", f"{name}{here}", node, self.reached(name, target))
        elif name in _RUNS:
            if name in _CONSTANT_IS_PLAIN and isinstance(first, ast.Constant):
                return
            self.add("dynamic", f"{name}{here}", node, self.reached(name, first))
        elif any(one.arg == "shell" and isinstance(one.value, ast.Constant) and one.value.value is True
                 for one in node.keywords):  # fmt: skip
            self.add("dynamic", f"{name or last} with a shell{here}", node, self.reached("os.system", first))

    def reached(self, name: str, argument: ast.AST | None) -> str:
        """The rule for what comes from outside and is executed."""
        return "outside-data-runs" if argument is not None and name in _EXECUTES and self.is_outside(argument) else ""

    def is_outside(self, node: ast.AST) -> bool:
        for one in ast.walk(node):
            name = self.full(one)
            if name in _OUTSIDE or (isinstance(one, ast.Name) and one.id in self.outside):
                return True
            if isinstance(one, ast.Call) and self.full(one.func) in _OUTSIDE_CALLS:
                return True
        return False

    def is_config(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Subscript):
            return self.is_config(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            return self.is_config(node.func.value)
        last = _last(node)
        return last in self.configs or last.lower().lstrip("_") in _CONFIGS

    def attribute(self, node: ast.Attribute) -> None:
        if id(node) in self.quiet:
            return
        if rule := strong(node.attr):
            self.add("parameter", node.attr, node, rule)
        name = self.full(node)
        if name == "sys.argv":
            self.add("argv", "sys.argv", node)
        elif name in _ENV:
            self.add("environment", "*", node)

    def name(self, node: ast.Name) -> None:
        if id(node) not in self.quiet and self.names.get(node.id) in (*_ENV, "sys.argv"):
            full = self.names[node.id]
            self.add(*(("argv", full) if full == "sys.argv" else ("environment", "*")), node)

    def subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.slice, ast.Slice):
            self.put_together(node)
            return
        if self.full(node.value) in _ENV:
            self.environment(node, node.slice)
        elif text_of(node.slice) is not None and self.is_config(node.value):
            self.named(node, "key", node.slice)

    def compare(self, node: ast.Compare) -> None:
        sides = [node.left, *node.comparators]
        if any(self.full(one) in _ENV for one in sides):
            for one in sides:
                self.named(node, "environment", one)
                if self.full(one) in _ENV and text_of(node.left) is not None:
                    self.quiet.add(id(one))
        dispatched = any(self.is_dispatched(one) for one in sides)
        for one in sides:
            for constant in one.elts if isinstance(one, (ast.Tuple, ast.List, ast.Set)) else [one]:
                found = self.text(constant)
                if found and _FLAG.fullmatch(found):
                    self.named(node, "option", constant)
                elif found and dispatched and text_of(constant):
                    self.named(node, "verb", constant)
        left = _last(sides[0]) or _key(sides[0])
        if len(sides) == 2 and (value := text_of(sides[1])) and (rule := setting(left, value)):
            self.add("parameter", f"{left}={value!r}", node, rule)

    def is_dispatched(self, node: ast.AST) -> bool:
        return (_last(node) or _key(node)) in _DISPATCHED

    def match(self, node: ast.Match) -> None:
        if not self.is_dispatched(node.subject):
            return
        for case in node.cases:
            for one in ast.walk(case.pattern):
                if isinstance(one, ast.MatchValue):
                    self.named(one, "verb", one.value)

    def dictionary(self, node: ast.Dict) -> None:
        callables = [one for one in node.values if isinstance(one, (ast.Lambda, ast.Attribute, ast.Name))]
        handlers = [one for one in callables if not _last(one) or _last(one).startswith(("_", "do", "handle", "on"))]
        table = len(node.keys) > 1 and len(callables) == len(node.keys) and len(handlers) * 2 >= len(callables)
        for key, value in zip(node.keys, node.values, strict=True):
            if (text := text_of(key)) is None or key is None:
                continue
            if table:
                self.named(key, "verb", key)
            elif id(key) not in self.quiet and isinstance(value, ast.Constant):
                if rule := setting(text, str(value.value)):
                    self.add("key", f"{text}={value.value!r}", key, rule)

    def assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [one.id for one in targets if isinstance(one, ast.Name)]
        value = node.value
        for one in targets:
            self.parameter(_last(one), value, one)
        if value is None or not names:
            return
        source = self.full(value.func) if isinstance(value, ast.Call) else ""
        if source in _LOADS:
            self.configs.update(names)
        if self.is_outside(value):
            self.outside.update(names)
        if any(_TABLES.fullmatch(one) for one in names) and isinstance(value, (ast.Dict, ast.Tuple, ast.List, ast.Set)):
            for key in value.keys if isinstance(value, ast.Dict) else value.elts:
                if key is not None and (text := text_of(key)) and re.fullmatch(r"[A-Za-z][\w.-]*", text):
                    self.named(key, "key", key)

    def put_together(self, node: ast.expr) -> None:
        """What is made of constants is judged as a constant that stands there."""
        if id(node) not in self.quiet and (text := made(node, self.texts)) is not None:
            self.constant(ast.copy_location(ast.Constant(text), node))

    def constant(self, node: ast.Constant) -> None:
        text = text_of(node)
        if text is None or id(node) in self.quiet or not _PLAIN.fullmatch(text):
            return
        for name, met in disguised(text):
            self.add("text", name, node, met)
        if _FLAG.fullmatch(text):
            self.add("argument", text if switch("argument", text) else text.partition("=")[0], node)
        elif rule := strong(text) or (_VARIABLE.fullmatch(text) and switch("environment", text)):
            self.add("text", text, node, rule)

    def condition(self, node: ast.If) -> None:
        test = node.test
        if isinstance(test, ast.Compare) and self.full(test.left) == "__name__" and not self.scope:
            self.add("entry", "__main__", node)

    def handled(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            self.quiet.add(id(node.value))  # a text that nobody reads


def _is_env(name: str) -> bool:
    return name in _ENV


def _last(node: ast.AST) -> str:
    """The last part of a name; empty for what has none."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _key(node: ast.AST) -> str:
    """The constant key of `x["key"]` or `x.get("key")`; empty for anything else."""
    if isinstance(node, ast.Subscript):
        return text_of(node.slice) or ""
    if isinstance(node, ast.Call) and _last(node.func) == "get" and node.args:
        return text_of(node.args[0]) or ""
    return ""


_MAKES: Final = frozenset("join format replace decode b64decode fromhex unhexlify upper lower".split())
_STATEMENTS: Final = ("body", "orelse", "finalbody", "handlers", "cases")
#: Parts of nodes in which nothing is visited.
_BARE: Final = frozenset("ctx op ops id attr arg name names module level kind type_comment rest".split())
_PARTS: Final[dict[type[ast.AST], tuple[str, ...]]] = {}


def _parts(kind: type[ast.AST]) -> tuple[str, ...]:
    """The parts of a kind of node in which something is visited, last first."""
    found = () if kind is ast.Constant else tuple(one for one in reversed(kind._fields) if one not in _BARE)
    return _PARTS.setdefault(kind, found)


_VISITS: Final[dict[type[ast.AST], Any]] = {
    ast.Call: _Reader.call,
    ast.Attribute: _Reader.attribute,
    ast.Name: _Reader.name,
    ast.Subscript: _Reader.subscript,
    ast.Compare: _Reader.compare,
    ast.Match: _Reader.match,
    ast.Dict: _Reader.dictionary,
    ast.Assign: _Reader.assign,
    ast.AnnAssign: _Reader.assign,
    ast.Constant: _Reader.constant,
    ast.BinOp: _Reader.put_together,
    ast.JoinedStr: _Reader.put_together,
    ast.If: _Reader.condition,
    ast.Expr: _Reader.handled,
}
