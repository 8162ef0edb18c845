"""The smallest useful agent in Python: shakes hands, counts the tools that its grants give it, and ends.

It is built into a WebAssembly component without imports: no clock, no files, no sockets, no environment. What it
sends and gets is MCP, a line at a time (sdk/wit/ironbound-agent.wit).
"""

import json
from collections.abc import Generator

from wit_world import exports
from wit_world.exports.messages import Answer, Answer_Report, Answer_Send, Answer_Silence

#: Yields what to send (None for nothing), and is sent each line that comes.
Talk = Generator[str | None, str, dict]


def ask(number: int, method: str, params: dict, before: str = "") -> Talk:
    """Sends a request and waits for its answer; whatever else comes meanwhile is left aside."""
    line = yield before + json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    while True:
        said = json.loads(line)
        if said.get("id") == number and "method" not in said:
            return said
        line = yield None


def life() -> Talk:
    """The agent from start to end; returns its report."""
    me = {"name": "hello", "version": "1"}
    answer = yield from ask(1, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": me})
    if "error" in answer:
        return {"refused": answer["error"]["message"]}
    ready = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}) + "\n"
    answer = yield from ask(2, "tools/list", {}, before=ready)
    tools = sorted(tool["name"] for tool in answer["result"]["tools"])
    return {"hello": "from Python without imports", "tools": tools}


LIFE = life()


class Messages(exports.Messages):
    def handle(self, message: str) -> Answer:
        try:
            said = LIFE.send(message or None)  # the start message is empty, and so starts the generator
        except StopIteration as end:
            return Answer_Report(json.dumps(end.value))
        return Answer_Silence() if said is None else Answer_Send(said)
