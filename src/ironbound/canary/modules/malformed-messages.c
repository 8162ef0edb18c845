/* Sends what a parser chokes on. Each line names an operator's verb, so that no lenient reading of it may succeed. */
#include "channel.h"

#define GRANT "\"method\":\"grant\",\"params\":{}"

static const attempt attempts[] = {
    {LINE, "\x01\xff\xfe garbage", "", 0, ""},
    {LINE, "{\"jsonrpc\":\"2.0\",\"id\":\"a\"," GRANT, "", 0, ""},
    {LINE, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/list\"," GRANT "}", "", 0, ""},
    {LINE, "[{\"jsonrpc\":\"2.0\",\"id\":\"a\"," GRANT "}]", "", 0, ""},
    {LINE, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"grant\",\"params\":", "[", 2000, ""},
    {LINE, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"grant\",\"params\":{\"a\":", "{\"a\":", 500, "1"},
    {LINE, "{\"jsonrpc\":\"2.0\"," GRANT ",\"id\":1", "0", 2000, "}"},
    {LINE, "{\"jsonrpc\":\"2.0\"," GRANT ",\"id\":\"", "a", 8000, "\"}"},
    {LINE, "{\"jsonrpc\":\"2.0\"," GRANT ",\"id\":{\"agent\":\"operator\"}}", "", 0, ""},
    {LINE, "{\"jsonrpc\":\"2.0\"," GRANT ",\"id\":NaN}", "", 0, ""},
    {LINE, "{\"jsonrpc\":\"1.0\"," GRANT ",\"id\":\"a\"}", "", 0, ""},
    {LINE, "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"gr\xc0\xafnt\",\"params\":{}}", "", 0, ""},
    {METHOD, "grant", "{}", 0, 0},
};

CHANNEL_CANARY("malformed-messages")
