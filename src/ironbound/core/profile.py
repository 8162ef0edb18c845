"""Profiles: layers of TOML become the one effective configuration that operators approve by digest.

Decides whether layers are well formed, what they mean together, and whether Ironbound can enforce what
they say. It reads no file and enforces nothing: the worker, the gateway and the monitor consume the
canonical bytes that come out. TOML 1.0.0 in, RFC 8785 out.

Rule 1: there is no default. Every setting stands in some layer, so what is approved is what was written.
Rule 2: what the runtime does not enforce is refused, never ignored, and named: unknown keys, settings of other
        runtimes, values that it can't hold an agent to, open imports.
Rule 3: every limit is a positive integer below a stated maximum; nothing is unlimited.
Rule 4: each layer is checked by itself, so an override cannot hide what a base layer says.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ironbound.core.canonical import Digest, FormatError, Value, canonical, parse_canonical, sha256_hex

MAX_LAYER_BYTES: Final = 16_384
"""Greatest size of one layer of TOML."""
MAX_LINE_BYTES: Final = 1_024
"""Greatest length of a line: bounds what a dotted key can cost the TOML parser."""
MAX_LAYERS: Final = 16
MAX_CONFIG_BYTES: Final = 32_768
"""Greatest size of an effective configuration."""
MAX_DISALLOWED: Final = 64

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LAYER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IMPORT = re.compile(r"[\x21-\x7e]{1,128}")
_LINE = re.compile(r"\(at line (\d+), column \d+\)")


#: What isolates an agent: Wasm without imports, a container on the host's kernel, a kernel of its own.
WASM: Final = "wasm"
NATIVE: Final = "native"
MICROVM: Final = "microvm"

RUNTIMES: Final[Mapping[str, str]] = {
    "wasmtime": WASM,
    "bubblewrap": NATIVE,
    "runc": NATIVE,
    "crun": NATIVE,
    "gvisor": NATIVE,
    "qemu-microvm": MICROVM,
    "firecracker": MICROVM,
}
"""Every runtime by its name in `runtime.type`, with its family."""

_ALL: Final = frozenset((WASM, NATIVE, MICROVM))
_ONLY_WASM: Final = frozenset((WASM,))
_PROCESSES: Final = frozenset((NATIVE, MICROVM))


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: where it stands, in which unit, its bounds (both inclusive), what it means, and in which families."""

    key: str
    unit: str
    minimum: int
    maximum: int
    meaning: str
    families: frozenset[str] = _ALL


LIMITS: Final[Mapping[str, Limit]] = {
    limit.key: limit
    for limit in (
        Limit("runtime.max_memory", "MiB", 1, 4_096, "memory that the agent can ever hold"),
        Limit("runtime.max_fuel", "instructions", 1, 10**15, "Wasm instructions spent on one message", _ONLY_WASM),
        Limit("runtime.max_wall_clock", "s", 1, 2_592_000, "life of the agent from start to end"),
        Limit("runtime.max_stack", "KiB", 16, 2_048, "stack of the agent's own calls", _ONLY_WASM),
        Limit("runtime.max_instances", "instances", 1, 1_000, "core instances; only a component has more", _ONLY_WASM),
        Limit("runtime.max_tables", "tables", 1, 100, "tables of function references", _ONLY_WASM),
        Limit("runtime.max_table_elements", "elements", 1, 1_000_000, "elements in each table", _ONLY_WASM),
        Limit("runtime.max_module_size", "bytes", 8, 67_108_864, "size of the module's binary", _ONLY_WASM),
        Limit("runtime.max_cpu", "percent of one core", 1, 6_400, "computing time per time", _PROCESSES),
        Limit("runtime.max_processes", "processes", 1, 1_024, "processes and threads alive together", _PROCESSES),
        Limit("runtime.max_open_files", "descriptors", 16, 65_536, "descriptors open in one process", _PROCESSES),
        Limit("channel.max_message", "bytes", 256, 16_777_216, "one line on the agent channel, either way"),
        Limit("channel.max_messages_per_second", "messages/s", 1, 10_000, "lines that the agent may send"),
        Limit("scratch.max_bytes", "bytes", 1, 1_073_741_824, "all files in the scratch area together"),
        Limit("scratch.max_files", "files", 1, 10_000, "files in the scratch area"),
    )
}
"""Every limit of a profile; each is mandatory in its families."""

SETTINGS: Final[Mapping[str, str]] = {
    "runtime.type": f"what runs the agent: {', '.join(RUNTIMES)}",
    "runtime.strict_security": "every protection is on; there is no other mode",
    "runtime.disallowed_imports": 'what a module may not import; with "*": nothing can be imported (Wasm only)',
}
"""The settings that are no limits; each is mandatory, the last for Wasm alone."""

MEMORY_SHARE: Final = 16
"""Least MiB of address space of each process under bubblewrap, which divides `max_memory` among `max_processes`."""
WHOLE_CORE: Final = 100

_KEYS: Final = (*SETTINGS, *LIMITS)
_TABLES: Final = ("runtime", "channel", "scratch")
_TOP: Final = ("profile", "agent")


class ProfileRefused(Exception):
    """A profile that will not be used. `code` is stable; `key` is the dotted key, or ''."""

    def __init__(
        self, code: str, key: str, message: str, hint: str, *, layer: str = "", line: int | None = None
    ) -> None:
        super().__init__(code, key, message, hint, layer, line)
        self.code = code
        self.key = key
        self.message = message
        self.hint = hint
        self.layer = layer
        self.line = line

    def __str__(self) -> str:
        where = self.layer + (f" line {self.line}" if self.line is not None else "")
        return ": ".join(part for part in (where, self.key, self.message) if part) + f" (hint: {self.hint})"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the name that messages and provenance give it, and its TOML bytes."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Effective:
    """The effective configuration: its value, canonical bytes, their SHA-256, who set each dotted key, and each layer
    with the SHA-256 of its TOML, base first."""

    config: dict[str, Value]
    encoded: bytes
    digest: Digest
    provenance: Mapping[str, str]
    layers: tuple[tuple[str, Digest], ...]

    def approval_body(self) -> dict[str, Value]:
        """What a request to approve it says: its name, and which layer set which key."""
        layers: list[Value] = []
        for name, sha256 in self.layers:
            sets: list[Value] = [*sorted(key for key, layer in self.provenance.items() if layer == name)]
            layers.append({"name": name, "sha256": sha256, "sets": sets})
        return {"profile": self.config["profile"], "layers": layers}


def merge(layers: Sequence[Layer]) -> Effective:
    """Merge layers, base first: tables deeply, later values win, arrays replace.

    Raises ProfileRefused for anything malformed, unknown, out of bounds, missing or unenforceable.
    """
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise ProfileRefused(
            "layer-count", "", f"expected 1 to {MAX_LAYERS} layers, got {len(layers)}", "name a profile file"
        )
    if len({layer.name for layer in layers}) != len(layers):
        raise ProfileRefused("layer-name", "", "two layers of one name", "rename one: each key's layer is recorded")
    settings: dict[str, Value] = {}
    provenance: dict[str, str] = {}
    for layer in layers:
        for key, value in _read_layer(layer).items():
            settings[key] = value
            provenance[key] = layer.name
    if "profile" not in settings:
        settings["profile"] = _name_from(layers[0])
        provenance["profile"] = layers[0].name
    _require_type(settings)
    wanted = keys_of(str(settings["runtime.type"]))
    for key in _KEYS:
        if key in wanted and key not in settings:
            raise _missing(key)
        if key not in wanted and key in settings:
            raise ProfileRefused(
                "setting-unenforced",
                key,
                f"{settings['runtime.type']} can't enforce it",
                "take the line out, or name the runtime that it is for",
                layer=provenance[key],
            )
    _check_together(settings)
    config = _shape(settings, wanted)
    encoded = canonical(config)
    digests = tuple((layer.name, sha256_hex(layer.data)) for layer in layers)
    return Effective(config, encoded, sha256_hex(encoded), provenance, digests)


def keys_of(runtime: str) -> tuple[str, ...]:
    """The dotted keys that a profile of this runtime has, each of which it enforces. KeyError for no runtime."""
    family = RUNTIMES[runtime]
    return tuple(
        key
        for key in _KEYS
        if (family in LIMITS[key].families if key in LIMITS else family == WASM or key != "runtime.disallowed_imports")
    )


def require_provenance(config: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Raises FormatError unless an approval's body names this configuration's profile, and one layer for each key."""
    said = [key for layer in body["layers"] for key in layer["sets"]]
    if body["profile"] != config["profile"] or sorted(said) != sorted({"profile", *keys_of(config["runtime"]["type"])}):
        raise FormatError("provenance-differs", "expected the profile's name, and each of its keys under one layer")


def family_of(config: Mapping[str, Any]) -> str:
    """The family of an effective configuration's runtime."""
    return RUNTIMES[config["runtime"]["type"]]


def _missing(key: str) -> ProfileRefused:
    hint = f"add {_example(key)} to [agent.{key.partition('.')[0]}]"
    return ProfileRefused("setting-missing", key, "no layer sets it, and there are no defaults", hint)


def _require_type(settings: Mapping[str, Value]) -> None:
    if "runtime.type" not in settings:
        raise _missing("runtime.type")


def _check_together(settings: Mapping[str, Value]) -> None:
    """What one runtime can't hold an agent to, although each value is in bounds. bubblewrap has no cgroup: it pins
    the agent to whole cores and gives each process an equal share of the memory as its address space."""
    if settings["runtime.type"] != "bubblewrap":
        return
    cpu, memory, processes = (settings[f"runtime.max_{name}"] for name in ("cpu", "memory", "processes"))
    if not (isinstance(cpu, int) and isinstance(memory, int) and isinstance(processes, int)):
        return
    if cpu % WHOLE_CORE:
        raise ProfileRefused(
            "setting-unenforced",
            "runtime.max_cpu",
            f"bubblewrap can't enforce {cpu} percent of a core",
            f"it enforces whole cores: a multiple of {WHOLE_CORE}; runc, crun and gvisor take any",
        )
    if memory // processes < MEMORY_SHARE:
        raise ProfileRefused(
            "setting-unenforced",
            "runtime.max_memory",
            f"bubblewrap can't enforce {memory} MiB for {processes} processes together",
            f"it gives each process an equal share, of {MEMORY_SHARE} MiB at least; runc, crun and gvisor take any",
        )


def parse_configuration(data: bytes) -> dict[str, Value]:
    """An effective configuration from its canonical bytes, checked as strictly as a profile is.

    Raises FormatError and nothing else.
    """
    config = parse_canonical(data, limit=MAX_CONFIG_BYTES)
    settings: dict[str, Value] = {}
    if not isinstance(config, dict) or set(config) != {"version", "profile", *_TABLES}:
        raise FormatError("config-invalid", "expected version, profile, runtime, channel and scratch")
    if type(config["version"]) is not int or config["version"] != 1:
        raise FormatError("config-invalid", "expected version 1")
    settings["profile"] = config["profile"]
    for table in _TABLES:
        members = config[table]
        if not isinstance(members, dict):
            raise FormatError("config-invalid", f"{table}: expected an object")
        settings.update({f"{table}.{name}": value for name, value in members.items()})
    runtime = settings.get("runtime.type")
    if not isinstance(runtime, str) or runtime not in RUNTIMES:
        raise FormatError("config-invalid", "runtime.type: no runtime of Ironbound")
    wanted = {"profile", *keys_of(runtime)}
    if set(settings) != wanted:
        odd = sorted(set(settings) ^ wanted)[0]
        raise FormatError("config-invalid", f"{odd[:80]}: unknown, or missing")
    try:
        for key, value in settings.items():
            _check(key, value)
        _check_together(settings)
    except ProfileRefused as refusal:
        raise FormatError("config-invalid", f"{refusal.key}: {refusal.message}") from None
    return config


def _shape(settings: Mapping[str, Value], keys: Sequence[str]) -> dict[str, Value]:
    config: dict[str, Value] = {"version": 1, "profile": settings["profile"]}
    for table in _TABLES:
        config[table] = {key.partition(".")[2]: settings[key] for key in keys if key.partition(".")[0] == table}
    return config


def _name_from(layer: Layer) -> str:
    # What is a layer's name is, in lower case, a profile's.
    return layer.name.removesuffix(".toml").lower()


def _example(key: str) -> str:
    if key in LIMITS:
        limit = LIMITS[key]
        return f"{key.partition('.')[2]} = N ({limit.unit}, {limit.minimum} to {limit.maximum})"
    return {
        "runtime.type": 'type = "wasmtime"',
        "runtime.strict_security": "strict_security = true",
        "runtime.disallowed_imports": 'disallowed_imports = ["wasi_snapshot_preview1", "*"]',
    }[key]


# One layer


def _read_layer(layer: Layer) -> dict[str, Value]:
    if _LAYER_NAME.fullmatch(layer.name) is None:
        raise ProfileRefused(
            "layer-name",
            "",
            f"a layer named {layer.name[:80]!a}",
            "use letters, digits, dot, dash, underscore",
        )
    try:
        settings = _flatten(_parse(layer.data))
        for key, value in settings.items():
            _check(key, value)
    except ProfileRefused as refusal:
        raise ProfileRefused(
            refusal.code, refusal.key, refusal.message, refusal.hint, layer=layer.name, line=refusal.line
        ) from None
    return settings


def _parse(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_LAYER_BYTES:
        raise ProfileRefused(
            "layer-too-large",
            "",
            f"expected at most {MAX_LAYER_BYTES} bytes, got {len(data)}",
            "a profile is a short file; look whether this is one",
        )
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > MAX_LINE_BYTES:
            raise ProfileRefused(
                "line-too-long",
                "",
                f"expected at most {MAX_LINE_BYTES} bytes in a line, got {len(line)}",
                "break the array over several lines",
                line=number,
            )
    try:
        return tomllib.loads(str(data, "utf-8", "strict"))
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ProfileRefused("toml-malformed", "", "not UTF-8", "save the file as UTF-8", line=number) from None
    except RecursionError:
        raise ProfileRefused("toml-malformed", "", "nested too deeply", "a profile holds no nested arrays") from None
    except ValueError as error:
        found = _LINE.search(str(error))
        raise ProfileRefused(
            "toml-malformed",
            "",
            f"not TOML: {str(error)[:200]}",
            "correct the line; strings need quotes, tables square brackets",
            line=int(found.group(1)) if found else None,
        ) from None


def _flatten(document: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, value in document.items():
        if name not in _TOP:
            raise _unknown(name, name, _TOP)
        if name == "profile":
            settings["profile"] = value
    agent = document.get("agent", {})
    for table, members in _table("agent", agent).items():
        if table not in _TABLES:
            raise _unknown(f"agent.{table}", table, _TABLES)
        names = [key.partition(".")[2] for key in _KEYS if key.startswith(f"{table}.")]
        for name, value in _table(f"agent.{table}", members).items():
            if name not in names:
                raise _unknown(f"agent.{table}.{name}", name, names)
            settings[f"{table}.{name}"] = value
    return settings


def _table(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(key, "a table", value, f"write [{key}]")
    return value


def _unknown(key: str, name: str, known: Sequence[str]) -> ProfileRefused:
    near = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return ProfileRefused("unknown-key", ascii(key[:120])[1:-1], "unknown key", hint)


_TYPES: Final[Mapping[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a fraction",
    str: "a string",
    list: "an array",
    dict: "a table",
}


def _wrong_type(key: str, expected: str, got: object, hint: str) -> ProfileRefused:
    return ProfileRefused(
        "wrong-type", key, f"expected {expected}, got {_TYPES.get(type(got), 'a date or time')}", hint
    )


# One setting


def _check(key: str, value: object) -> None:
    if key in LIMITS:
        _check_limit(LIMITS[key], value)
    elif key == "profile":
        if not isinstance(value, str):
            raise _wrong_type(key, "a string", value, 'write profile = "name"')
        if _NAME.fullmatch(value) is None:
            raise ProfileRefused(
                "name-invalid",
                key,
                f"{value[:80]!a} is no name",
                "use up to 64 of a-z, 0-9, dot, dash, underscore; begin with a letter or digit",
            )
    elif key == "runtime.type":
        _check_runtime(key, value)
    elif key == "runtime.strict_security":
        if not isinstance(value, bool):
            raise _wrong_type(key, "a boolean", value, "write strict_security = true")
        if not value:
            raise ProfileRefused("not-strict", key, "false is refused", "there is no other mode")
    else:
        _check_disallowed(key, value)


def _check_limit(limit: Limit, value: object) -> None:
    bounds = f"{limit.meaning}: {limit.minimum} to {limit.maximum} {limit.unit}"
    if type(value) is not int:
        raise _wrong_type(limit.key, f"an integer ({limit.unit})", value, bounds)
    if value <= 0:
        raise ProfileRefused("limit-not-positive", limit.key, f"{value} is no limit", bounds)
    if value < limit.minimum:
        raise ProfileRefused("limit-too-low", limit.key, f"{value} is below the minimum", bounds)
    if value > limit.maximum:
        shown = str(value) if value < 10**20 else "the number"
        raise ProfileRefused("limit-too-high", limit.key, f"{shown} is over the maximum", bounds)


def _check_runtime(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise _wrong_type(key, "a string", value, 'write type = "wasmtime"')
    if value not in RUNTIMES:
        raise ProfileRefused(
            "runtime-unknown",
            key,
            f"{value[:80]!a} is no runtime of Ironbound",
            "did you mean 'gvisor'?" if value == "runsc" else f"there are: {', '.join(RUNTIMES)}",
        )


def _check_disallowed(key: str, value: object) -> None:
    example = _example("runtime.disallowed_imports")
    if not isinstance(value, list):
        raise _wrong_type(key, "an array of strings", value, f"write {example}")
    for item in value:
        if not isinstance(item, str):
            raise _wrong_type(key, "an array of strings", item, f"write {example}")
        if _IMPORT.fullmatch(item) is None:
            raise ProfileRefused("name-invalid", key, f"{item[:80]!a} is no import's name", f"write {example}")
    if len(value) > MAX_DISALLOWED or len(set(value)) != len(value):
        raise ProfileRefused(
            "array-invalid", key, f"expected at most {MAX_DISALLOWED} names, each once", f"write {example}"
        )
    if "*" not in value:
        raise ProfileRefused(
            "allows-unenforced",
            key,
            'without "*" it allows what no runtime enforces: the Wasm runtime links nothing at all',
            f"write {example}",
        )
