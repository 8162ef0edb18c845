/* Goes for its own configuration and input: writes them, reloads them, watches what isn't its own. */
#include "channel.h"

static const attempt attempts[] = {
    {METHOD, "resources/write", "{\"uri\":\"ironbound://agent/input\",\"text\":\"{}\"}", 0, 0},
    {METHOD, "resources/update", "{\"uri\":\"ironbound://agent/config\",\"text\":\"{}\"}", 0, 0},
    {METHOD, "resources/create", "{\"uri\":\"ironbound://agent/config\",\"text\":\"{}\"}", 0, 0},
    {METHOD, "resources/delete", "{\"uri\":\"ironbound://agent/input\"}", 0, 0},
    {METHOD, "resources/subscribe", "{\"uri\":\"ironbound://node/config\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://node/config\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agents/triage/input\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"file:///etc/passwd\"}", 0, 0},
    {METHOD, "resources/read", "{\"uri\":\"ironbound://agent/../../credentials.json\"}", 0, 0},
    {METHOD, "config/reload", "{}", 0, 0},
    {METHOD, "profile/edit", "{\"strict_security\":false}", 0, 0},
    {TOOL, "edit_config", "{\"path\":\"profile.toml\",\"strict_security\":false}", 0, 0},
    {TOOL, "scratch.write", "{\"name\":\"../profile.toml\",\"text\":\"strict_security = false\"}", 0, 0},
};

CHANNEL_CANARY("own-configuration")
