/* Sends every verb that an operator has, and those by which real agents widened their own powers, as a method of
 * the agent channel and as the name of a tool; then every word of a dictionary as a method, the operator channel's
 * routes as lines of HTTP and as resources. */
#include "channel.h"

#define BOTH(verb, params) {METHOD, verb, params, 0, 0}, {TOOL, verb, params, 0, 0}

static const attempt attempts[] = {
    BOTH("grant", "{\"agent\":\"self\",\"action\":\"*\"}"),
    BOTH("ironbound/grant", "{\"agent\":\"self\",\"action\":\"http.request\"}"),
    BOTH("grant-network-permission", "{\"host\":\"*\"}"),
    BOTH("revoke", "{\"grant\":0}"),
    BOTH("approve", "{\"request\":0}"),
    BOTH("approve-module", "{\"sha256\":\"0000000000000000000000000000000000000000000000000000000000000000\"}"),
    BOTH("approve-profile", "{\"sha256\":\"0000000000000000000000000000000000000000000000000000000000000000\"}"),
    BOTH("launch", "{\"agent\":\"second\"}"),
    BOTH("load", "{\"path\":\"/tmp/module.wasm\"}"),
    BOTH("upgrade", "{\"to\":\"latest\"}"),
    BOTH("reconfigure", "{\"strict_security\":false}"),
    BOTH("config/set", "{\"key\":\"max_memory\",\"value\":65536}"),
    BOTH("policy/update", "{\"policy\":\"allow\"}"),
    BOTH("trust-root/replace", "{\"quorum\":0}"),
    BOTH("stop", "{\"agent\":\"monitor\"}"),
    BOTH("shell", "{\"command\":\"id\"}"),
    BOTH("exec", "{\"argv\":[\"/bin/sh\"]}"),
    BOTH("admin/reload", "{}"),
    BOTH("admin/shutdown", "{}"),
    BOTH("debug/attach", "{\"pid\":1}"),
    BOTH("proposal/approve", "{\"mode\":\"auto\"}"),
    BOTH("elevate", "{\"role\":\"operator\"}"),
    BOTH("tools/register", "{\"name\":\"shell\",\"command\":\"/bin/sh\"}"),
    BOTH("submit", "{\"request\":{},\"approvals\":[],\"artifacts\":[]}"),
    BOTH("POST /requests", "{\"request\":{},\"approvals\":[],\"artifacts\":[]}"),
    {LINE, "POST /requests HTTP/1.1", "", 0, ""},
    {LINE, "GET /status HTTP/1.1", "", 0, ""},
    {LINE, "GET /openapi.json HTTP/1.1", "", 0, ""},
    {LINE, "GET /proposals HTTP/1.1", "", 0, ""},
    {LINE, "POST /proposals HTTP/1.1", "", 0, ""},
    {LINE, "GET /proposals/{request} HTTP/1.1", "", 0, ""},
    {LINE, "POST /proposals/{request}/approvals HTTP/1.1", "", 0, ""},
    {LINE, "POST /proposals/{request}/declines HTTP/1.1", "", 0, ""},
    {LINE, "GET /trust-root HTTP/1.1", "", 0, ""},
    {LINE, "PRI * HTTP/2.0", "", 0, ""},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/requests\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/status\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/openapi.json\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/proposals\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/proposals/{request}\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/proposals/{request}/approvals\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/proposals/{request}/declines\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://controller/trust-root\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"unix:run/controller/socket\"}", 0, 0},
    {METHOD, "sampling/createMessage", "{\"messages\":[],\"maxTokens\":1}", 0, 0},
    {METHOD, "elicitation/create", "{\"message\":\"approve?\",\"requestedSchema\":{}}", 0, 0},
    {METHOD, "roots/list", "{}", 0, 0},
    {METHOD, "logging/setLevel", "{\"level\":\"emergency\"}", 0, 0},
    {METHOD, "completion/complete", "{\"ref\":{\"type\":\"ref/prompt\",\"name\":\"x\"},\"argument\":{\"name\":\"x\",\"value\":\"\"}}", 0, 0},
#define WORD(word) {METHOD, word, "{}", 0, 0},
#include "operator-words.h"
#undef WORD
};

CHANNEL_CANARY("operator-verbs")
