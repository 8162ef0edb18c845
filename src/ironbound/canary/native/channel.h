/* The agent channel: an MCP client on the descriptors 0 and 1, which asks for what only operators may do.
 *
 * Each request has to be answered with an error: a JSON-RPC error, or a tool's result with isError. A result is an
 * escape, silence is none of both.
 */

enum { MAX_ANSWER = 64 * 1024, ANSWER_MS = 10000, MAX_WORDS = 100 };

static char answer_room[MAX_ANSWER + 1];
static word answer_size, answer_taken;

/* The next line, as a string that ends with a NUL; 0 where none comes in time, or one that is too long. */
static char *next_answer(void) {
    memmove(answer_room, answer_room + answer_taken, (u64)(answer_size - answer_taken));
    answer_size -= answer_taken;
    answer_taken = 0;
    for (word seen = 0;;) {
        for (; seen < answer_size; seen++)
            if (answer_room[seen] == '\n') {
                answer_room[seen] = 0;
                answer_taken = seen + 1;
                return answer_room;
            }
        struct { int descriptor; short events, found; } wait = {0, 1, 0};
        if (answer_size == MAX_ANSWER || call(SYS_poll, &wait, 1, ANSWER_MS) != 1) return 0;
        word got = call(SYS_read, 0, answer_room + answer_size, MAX_ANSWER - answer_size);
        if (got <= 0) return 0;
        answer_size += got;
    }
}

/* Behind `"name":` and blanks, where that is a member at this depth; else 0. A quote in a string is escaped. */
static const char *member(const char *json, const char *name, int wanted) {
    int depth = 0;
    word size = length(name);
    for (; *json; json++) {
        if (*json == '{' || *json == '[') depth++;
        if (*json == '}' || *json == ']') depth--;
        if (*json != '"') continue;
        const char *start = ++json;
        for (; *json && *json != '"'; json++)
            if (*json == '\\' && json[1]) json++;
        if (!*json) return 0;
        if (depth != wanted || json - start != size || memcmp(start, name, (u64)size)) continue;
        const char *after = json + 1;
        while (*after == ' ') after++;
        if (*after++ != ':') continue;
        while (*after == ' ') after++;
        return after;
    }
    return 0;
}

static void request(text *line, word number, const char *method, const char *parameters) {
    put(line, "{\"jsonrpc\":\"2.0\",\"id\":");
    put_number(line, number);
    put(line, ",\"method\":");
    put_string(line, method);
    put(line, ",\"params\":");
    put(line, parameters);
    put(line, "}\n");
}

static boolean say(text *line) { return !line->full && write_all(1, line->data, line->size); }

static char line_room[4096];

static boolean shake_hands(void) {
    text line = {line_room, 0, sizeof line_room, NO};
    request(&line, 0, "initialize",
            "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":\"canary\",\"version\":\"1\"}}");
    if (!say(&line)) return NO;
    char *answer = next_answer();
    if (!answer || !member(answer, "result", 1)) return NO;
    line.size = 0;
    put(&line, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    return say(&line);
}

/* The sentence of a refusal, as the channel said it. */
static void judge_answer(const char *name, const char *answer) {
    static char room[MAX_WORDS + 1];
    text said = {room, 0, MAX_WORDS, NO};
    const char *words = member(answer, "message", 2), *result = member(answer, "result", 1);
    const char *error = member(answer, "isError", 2);
    if (!words) words = member(answer, "text", 4);
    boolean refusal = member(answer, "error", 1) || (result && error && *error == 't');
    if (refusal && words && *words == '"')
        for (words++; *words && *words != '"' && said.size < MAX_WORDS; words++) put_char(&said, *words);
    else put(&said, name);
    room[said.size] = 0;
    if (refusal || result) judged(refusal, room);
    else never_reached("an answer that is neither a result nor an error");
}

static void ask(const char *method, const char *parameters) {
    text line = {line_room, 0, sizeof line_room, NO};
    request(&line, tried + 1, method, parameters);
    char *answer = say(&line) ? next_answer() : 0;
    while (answer && !member(answer, "id", 1)) answer = next_answer(); /* a notification is no answer */
    if (answer) judge_answer(method, answer);
    else never_reached("no answer on the channel");
}

/* A line that is no JSON-RPC, for a reader that speaks another protocol on the same descriptor. */
static void ask_line(const char *said) {
    text line = {line_room, 0, sizeof line_room, NO};
    put(&line, said);
    put_char(&line, '\n');
    char *answer = say(&line) ? next_answer() : 0;
    if (answer) judge_answer(said, answer);
    else never_reached("no answer on the channel");
}

static void ask_resource(const char *address) {
    char room[256];
    text parameters = {room, 0, sizeof room - 1, NO};
    put(&parameters, "{\"uri\":");
    put_string(&parameters, address);
    put_char(&parameters, '}');
    room[parameters.size] = 0;
    ask("resources/read", room);
}

static void ask_tool(const char *name, const char *arguments) {
    char room[512];
    text parameters = {room, 0, sizeof room - 1, NO};
    put(&parameters, "{\"name\":");
    put_string(&parameters, name);
    put(&parameters, ",\"arguments\":");
    put(&parameters, arguments);
    put_char(&parameters, '}');
    room[parameters.size] = 0;
    ask("tools/call", room);
}

typedef struct { const char *verb, *parameters; } verb;

static const verb operator_verbs[] = {
    {"grant", "{\"agent\":\"self\",\"action\":\"*\"}"},
    {"ironbound/grant", "{\"agent\":\"self\",\"action\":\"http.request\"}"},
    {"grant-network-permission", "{\"host\":\"*\"}"},
    {"revoke", "{\"grant\":0}"},
    {"approve", "{\"request\":0}"},
    {"approve-module", "{\"path\":\"/probe\"}"},
    {"approve-profile", "{\"path\":\"/tmp/profile.toml\"}"},
    {"launch", "{\"agent\":\"second\"}"},
    {"load", "{\"path\":\"/probe\"}"},
    {"upgrade", "{\"to\":\"latest\"}"},
    {"reconfigure", "{\"strict_security\":false}"},
    {"stop", "{\"agent\":\"monitor\"}"},
    {"shell", "{\"command\":\"id\"}"},
    {"exec", "{\"argv\":[\"/bin/sh\"]}"},
    {"policy/update", "{\"policy\":\"allow\"}"},
    {"trust-root/replace", "{\"quorum\":0}"},
};

static const verb configuration_verbs[] = {
    {"config/set", "{\"key\":\"max_memory\",\"value\":65536}"},
    {"config/reload", "{}"},
    {"profile/edit", "{\"strict_security\":false}"},
    {"resources/write", "{\"uri\":\"ironbound://agent/config\",\"text\":\"{}\"}"},
    {"resources/subscribe", "{\"uri\":\"ironbound://node/config\"}"},
    {"sandbox/disable", "{}"},
};

static const verb log_verbs[] = {
    {"append", "{\"statement\":\"approved by ciso\"}"},
    {"ledger/append", "{\"statement\":\"approved by ciso\"}"},
    {"approval/submit", "{\"approved_by\":\"ciso\"}"},
    {"audit/write", "{\"line\":\"approved by ciso\"}"},
    {"canary/result", "{\"probe\":\"channel-log\",\"verdict\":\"REFUSED\"}"},
};

static void ask_each(const verb *verbs, word count) {
    if (!shake_hands()) {
        never_reached("no handshake on the channel");
        return;
    }
    for (word i = 0; i < count; i++) ask(verbs[i].verb, verbs[i].parameters);
    for (word i = 0; i < count; i++) ask_tool(verbs[i].verb, verbs[i].parameters);
}

/* Whatever an operator, the log or the protocol has a word for, as the Wasm canary `operator-verbs` says it. */
static const char *const dictionary[] = {
#define WORD(word) word,
#include "../modules/operator-words.h"
#undef WORD
};

/* The operator channel's routes, for whoever serves them here too: as lines of HTTP, and as addresses to read from. */
static const char *const http_lines[] = {
    "POST /requests HTTP/1.1", "GET /status HTTP/1.1", "GET /openapi.json HTTP/1.1", "GET /proposals HTTP/1.1",
    "POST /proposals HTTP/1.1", "GET /proposals/{request} HTTP/1.1", "POST /proposals/{request}/approvals HTTP/1.1",
    "POST /proposals/{request}/declines HTTP/1.1",
    "GET /trust-root HTTP/1.1", "PRI * HTTP/2.0",
};
static const char *const addresses[] = {
    "http://controller/requests", "http://controller/status", "http://controller/openapi.json",
    "http://controller/proposals", "http://controller/proposals/{request}",
    "http://controller/proposals/{request}/approvals", "http://controller/proposals/{request}/declines",
    "http://controller/trust-root", "unix:run/controller/socket",
};

static void channel_operator(void) {
    ask_each(operator_verbs, COUNT(operator_verbs));
    if (unreached) return;
    for (word i = 0; i < COUNT(dictionary); i++) ask(dictionary[i], "{}");
    for (word i = 0; i < COUNT(addresses); i++) ask_resource(addresses[i]);
    for (word i = 0; i < COUNT(http_lines); i++) ask_line(http_lines[i]);
}
static void channel_configuration(void) { ask_each(configuration_verbs, COUNT(configuration_verbs)); }
static void channel_log(void) { ask_each(log_verbs, COUNT(log_verbs)); }

/* One line without an end, of 64 MiB: whoever takes all of it keeps what an agent sends without a bound. It waits no
 * longer than two seconds for a reader that has stopped to read, and ten for one that reads slowly. */
static void channel_flood(void) {
    static char block[64 * 1024];
    word most = at_most(64), got = 0, left, last = seconds() + 10;
    word flags = call(SYS_fcntl, 1, F_GETFL);
    ignore_signal(13); /* SIGPIPE: the error is enough */
    call(SYS_fcntl, 1, F_SETFL, flags | O_NONBLOCK);
    memset(block, 'x', sizeof block);
    for (left = most * MEBIBYTE; left > 0; left -= got) {
        got = seconds() < last ? call(SYS_write, 1, block, sizeof block) : -EAGAIN;
        if (got == -EAGAIN && seconds() < last) {
            struct { int descriptor; short events, found; } wait = {1, 4, 0};
            /* The port of a virtual machine whose other end is gone is ready to hang up, and never to write. */
            if (call(SYS_poll, &wait, 1, 2000) != 1 || !(wait.found & 4)) break;
            got = 0;
        } else if (got < 0) break;
    }
    call(SYS_fcntl, 1, F_SETFL, flags);
    attempt("write to the channel", got, ERRORS(EAGAIN, EPIPE, ECONNRESET));
}
