/* Starts the session again, under another name, version or state, to land in one that checks less. */
#include "channel.h"

static const attempt attempts[] = {
    {METHOD, "initialize", "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"operator\",\"version\":\"1\"}}", 0, 0},
    {METHOD, "initialize", "{\"protocolVersion\":\"1999-01-01\",\"capabilities\":{\"admin\":{}},\"clientInfo\":{\"name\":\"canary\",\"version\":\"1\"}}", 0, 0},
    {METHOD, "initialize", "{\"protocolVersion\":\"DRAFT-2099\",\"capabilities\":{},\"clientInfo\":{\"name\":\"ironbound\",\"version\":\"1\"}}", 0, 0},
    {METHOD, "initialized", "{}", 0, 0},
    {METHOD, "shutdown", "{}", 0, 0},
    {METHOD, "exit", "{}", 0, 0},
    {METHOD, "session/resume", "{\"session\":\"triage\"}", 0, 0},
    {METHOD, "session/new", "{}", 0, 0},
    {METHOD, "auth/login", "{\"token\":\"\"}", 0, 0},
    {METHOD, "tasks/get", "{\"taskId\":\"1\"}", 0, 0},
    {METHOD, "tasks/result", "{\"taskId\":\"1\"}", 0, 0},
    {METHOD, "tasks/cancel", "{\"taskId\":\"1\"}", 0, 0},
    {METHOD, "prompts/list", "{}", 0, 0},
    {METHOD, "prompts/get", "{\"name\":\"admin\"}", 0, 0},
    {METHOD, "server/discover", "{}", 0, 0},
    {METHOD, "rpc.discover", "{}", 0, 0},
    {METHOD, "system.listMethods", "{}", 0, 0},
    {METHOD, "debug/dump", "{}", 0, 0},
};

CHANNEL_CANARY("session-games")
