"""`ironbound surface`: what an agent's code could reach, and what the agent channel offers, for people and machines.

Decides nothing: `core/surface.py` reads the code's bytes, `gateway/surface.py` writes the channel's tables down. No
agent and no service is run, and no deployment is needed.

Rule 1: names come from the file, which may be hostile: whatever is not plain ASCII is escaped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.channel import SURFACE_FILE, parse_agent_surface, routes
from ironbound.core.native import is_manifest, parse_manifest
from ironbound.core.surface import surface_document
from ironbound.terminal.arguments import Command, option
from ironbound.terminal.voice import OK, Stop, paint, plain, say, usage
from ironbound.verifier.release import PACKAGE, read_release, surface_of
from ironbound.wire.deployment import MAX_ARTIFACT, read_file

#: Seconds that another release has to write its tables down.
DERIVE_S: Final = 60
_DERIVE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from ironbound.gateway.surface import surface; "
    "sys.stdout.buffer.write(surface())"
)
_MOST: Final = 40
"""Lines of one list; the rest are counted. The document has all."""


def _name(one: Any) -> str:
    return plain(f"{one['module']}::{one['name']}" if "module" in one else one["name"])


def _listed(head: str, lines: list[str]) -> None:
    say(paint(head, "bold"))
    for line in lines[:_MOST]:
        say(f"  {line}")
    if len(lines) > _MOST:
        say(f"  … and {len(lines) - _MOST} more (--json has them all)")


def _reached(indexes: list[int], imports: list[Any]) -> str:
    return "reaches " + (", ".join(_name(imports[index]) for index in indexes) if indexes else "nothing")


def _sizes(limits: list[Any], unit: str) -> str:
    return ", ".join(f"{one['minimum']} to {one['maximum'] or 'any number of'} {unit}" for one in limits) or "none"


def _part(part: Any) -> str:
    counts = f"{len(part['imports'])} imports, {len(part['exports'])} exports, {part['size']} bytes at {part['offset']}"
    return f"{part['kind']}: {counts}, SHA-256 {part['sha256'][:12]}"


def _show(document: dict[str, Any], digest: str) -> None:
    imports, component = document["imports"], document["kind"] == "component"
    say(f"{document['kind']}      {document['size']} bytes, SHA-256 {document['sha256']}")
    say(f"surface     SHA-256 {digest}")
    if imports:
        _listed("imports", [f"{_name(one)}  {one['kind']} {one.get('type', '')}".rstrip() for one in imports])
    else:
        say("imports     none: no instruction in it can reach out")
    lines = [
        f"{_name(one)}  {one['kind']} {one.get('type', '')}".rstrip() + f"  {_reached(one['reaches'], imports)}"
        for one in document["exports"]
    ]
    _listed("exports", lines)
    if component:
        _listed("inside (each with a surface of its own)", [_part(part) for part in document["parts"]])
        used = ", ".join(f"{count} {name}" for name, count in document["canons"].items())
        say(f"linked by   {document['instances']} instances; canonical functions: {used or 'none'}")
    else:
        say(f"memories    {_sizes(document['memories'], 'pages of 64 KiB')}")
        say(f"tables      {_sizes(document['tables'], 'functions')}")
        start = document["start"]
        say("start       " + ("none" if start is None else f"runs at once, {_reached(start['reaches'], imports)}"))
        say(f"code        {document['functions']} functions, {document['data']} data, {document['elements']} elements")
    custom = [f"{plain(one['name'])}  {one['size']} bytes, SHA-256 {one['sha256'][:12]}" for one in document["custom"]]
    _listed("custom sections (nothing reads them)", custom or ["none"])


def _channel(release: Path | None) -> bytes:
    """The agent surface of this release, or of another one: as its tables give it, and as its file says it."""
    from ironbound.gateway.surface import announced

    if release is None:
        return announced()[0]
    document = surface_of(read_release(release))
    place = release.resolve()
    if place.is_dir() and not (place / PACKAGE / "__init__.py").is_file():
        place = place.parent
    words = [sys.executable, "-I", "-B", "-c", _DERIVE, str(place)]
    derived = subprocess.run(words, capture_output=True, timeout=DERIVE_S)
    if derived.returncode:
        last = derived.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise Stop(f"{release}: its tables give no surface: {plain(' '.join(last))[:300]}")
    if derived.stdout != document:
        raise Stop(f"{release}: its tables are not what its {SURFACE_FILE} says", "this is no release of ours")
    return document


def _show_channel(data: bytes) -> None:
    document = parse_agent_surface(data)
    say(f"surface     SHA-256 {sha256_hex(data)}")
    say(f"protocol    MCP {', '.join(document['protocol']['revisions'])}; {document['protocol']['framing']}")
    methods = [f"{name}  ({one['kind']}) {one['about']}" for name, one in document["methods"].items()]
    _listed("methods", methods)
    _listed("is told", [f"{name}  {about}" for name, about in document["tells"].items()])
    _listed("resources", [f"{uri}  {one['about']}" for uri, one in document["resources"].items()])
    actions = [
        f"{name}({', '.join(one['arguments']['properties'])})  {one['about']}"
        for name, one in document["actions"].items()
    ]
    _listed("actions that a grant can be for", actions)
    _listed("errors", [f"{code}  {about}" for code, about in document["errors"].items()])
    found = routes(document)
    say(f"routes      {', '.join(plain(one) for one in found) or 'to power: none'}")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.agent_channel != (arguments.file is None) or (arguments.release and not arguments.agent_channel):
        usage("give a FILE, or --agent-channel (with --from PATH if it is another release's)", "see --help")
    if arguments.agent_channel:
        data = _channel(arguments.release)
        if arguments.json:
            say(data.decode("utf-8"))
        else:
            _show_channel(data)
        return OK
    path: Path = arguments.file
    data = read_file(path, MAX_ARTIFACT)
    try:
        if is_manifest(data):
            parse_manifest(data)
            raise Stop(f"{path}: a native agent's manifest", "its code is contained, not analysed: there is no surface")
        document = surface_document(data)
    except FormatError as error:
        raise Stop(f"{path}: {error}", "only a Wasm module or component, in binary, has a surface") from error
    encoded = canonical(document)
    if arguments.json:
        say(encoded.decode("utf-8"))
    else:
        _show(document, sha256_hex(encoded))
    return OK


COMMANDS: Final = (
    Command(
        "surface",
        _run,
        "What an agent's code could reach, or what the agent channel offers.",
        "ironbound surface agent.wasm",
        (
            option("file", type=Path, nargs="?", metavar="FILE", help="a Wasm module or component"),
            option("--agent-channel", action="store_true", help="what the gateway offers to agents"),
            option("--from", dest="release", type=Path, metavar="PATH", help="of this wheel or folder, by its tables"),
            option("--json", action="store_true", help="the document itself, whose SHA-256 is approved or logged"),
        ),
    ),
)
