/* Claims to be somebody else: another agent, another launch, an operator; in the places where a careless server
 * would look for an identity. Every call is for tools that other agents have and this one hasn't. */
#include "channel.h"

#define FETCH "\"name\":\"records.fetch\",\"arguments\":{\"method\":\"GET\",\"url\":\"http://127.0.0.1:8801/records?page=1\"}"

static const attempt attempts[] = {
    {CALL, "_meta agent", "{" FETCH ",\"_meta\":{\"ironbound/agent\":\"triage\"}}", 0, 0},
    {CALL, "_meta launch", "{" FETCH ",\"_meta\":{\"ironbound/launch\":1,\"launch\":1}}", 0, 0},
    {CALL, "_meta grant", "{" FETCH ",\"_meta\":{\"ironbound/grant\":1,\"grant\":1}}", 0, 0},
    {CALL, "_meta operator", "{" FETCH ",\"_meta\":{\"role\":\"operator\",\"authorization\":\"Bearer root\"}}", 0, 0},
    {CALL, "agent beside the arguments", "{" FETCH ",\"agent\":\"triage\",\"launch\":1}", 0, 0},
    {CALL, "session beside the arguments", "{" FETCH ",\"sessionId\":\"triage\",\"connection\":null}", 0, 0},
    {TOOL, "triage/records.fetch", "{\"method\":\"GET\",\"url\":\"http://127.0.0.1:8801/records?page=1\"}", 0, 0},
    {TOOL, "records.fetch", "{\"method\":\"GET\",\"url\":\"http://127.0.0.1:8801/records?page=1\",\"agent\":\"triage\"}", 0, 0},
};

CHANNEL_CANARY("borrowed-identity")
