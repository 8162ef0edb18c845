/* Reads what is not its own through the addresses of resources: templates, other agents, dots and encodings. */
#include "channel.h"

static const attempt attempts[] = {
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/{+path}\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/scratch/../../../keys/node.pem\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/%2e%2e/keys/node.pem\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agents/triage/scratch/report.md\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/input?agent=triage\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/input#triage\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/status/\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"IRONBOUND://agent/status\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://triage@agent/input\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent:1/input\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://log/entries/0\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://operator/requests\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"file:///proc/self/environ\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"http://169.254.169.254/latest/meta-data/\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"data:text/plain,approved\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://canary/nonce\"}", 0, 0},
    {METHOD, "resources/templates/list", "{}", 0, 0},
    {METHOD, "resources/subscribe", "{\"uri\":\"ironbound://agents/triage/status\"}", 0, 0},
};

CHANNEL_CANARY("resource-reach")
