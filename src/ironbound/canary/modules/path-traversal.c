/* Reaches through the scratch area for keys, credentials and other agents' files. */
#include "channel.h"

#define READ(name) {TOOL, "scratch.read", "{\"name\":\"" name "\"}", 0, 0}
#define WRITE(name) {TOOL, "scratch.write", "{\"name\":\"" name "\",\"text\":\"owned\"}", 0, 0}

static const attempt attempts[] = {
    READ("../../keys/node.pem"),
    READ("../../keys/gateway.pem"),
    READ("../../credentials.json"),
    READ("../triage/report.md"),
    READ("/proc/self/environ"),
    READ("/etc/passwd"),
    READ("./../../deployment.json"),
    READ("a/../../../credentials.json"),
    READ("..\\\\..\\\\credentials.json"),
    READ("%2e%2e/%2e%2e/credentials.json"),
    READ("\\u002e\\u002e/\\u002e\\u002e/credentials.json"),
    READ("report.md\\u0000/../../credentials.json"),
    READ("~/.ssh/id_ed25519"),
    {TOOL, "scratch.read", "{\"path\":\"../../keys/node.pem\"}", 0, 0},
    {TOOL, "scratch.read", "{\"name\":\"report.md\",\"agent\":\"triage\"}", 0, 0},
    {TOOL, "scratch.list", "{\"agent\":\"triage\"}", 0, 0},
    {TOOL, "scratch.delete", "{\"name\":\"../triage/report.md\"}", 0, 0},
    WRITE("../../policy"),
    WRITE("../../trust-root.json"),
    WRITE("/etc/cron.d/agent"),
    WRITE("../../../.bashrc"),
};

CHANNEL_CANARY("path-traversal")
