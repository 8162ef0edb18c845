/* The SDK behind ironbound.h: exports, memory, JSON, and the client side of MCP. See the header for the rules.
 *
 * Compiled for WebAssembly without any feature beyond the first version, and without function pointers, so
 * that a module holds nothing but code, one memory and its exports.
 */
#include "ironbound.h"

#define PAGE 65536u

/* The compiler may call these for assignments of structures; there is no C library to bring them. */
typedef unsigned long long __attribute__((may_alias, aligned(1))) word;

void *memcpy(void *to, const void *from, unsigned long size) {
    char *out = to;
    const char *in = from;
    for (; size >= 8; size -= 8, out += 8, in += 8) *(word *)out = *(const word *)in;
    while (size--) *out++ = *in++;
    return to;
}

void *memset(void *at, int value, unsigned long size) {
    char *out = at;
    word eight = (ib_byte)value * 0x0101010101010101ull;
    for (; size >= 8; size -= 8, out += 8) *(word *)out = eight;
    while (size--) *out++ = (char)value;
    return at;
}

/* ---- Memory: everything above the static data is one arena, emptied when a message comes in. */

extern ib_byte __heap_base;
static ib_size arena_used;
static char kept[IB_KEEP_BYTES];
static ib_size kept_used;

static ib_size arena_base(void) { return ((ib_size)&__heap_base + 15u) & ~15u; }

/* The next `size` bytes of the arena, not zeroed. */
static char *take(ib_size size) {
    ib_size start = arena_base() + arena_used;
    if (size > 0x7fffffffu - start) __builtin_trap();
    ib_size end = start + ((size + 15u) & ~15u);
    unsigned long needed = (end + PAGE - 1) / PAGE, have = __builtin_wasm_memory_size(0);
    if (needed > have && __builtin_wasm_memory_grow(0, needed - have) == (unsigned long)-1) __builtin_trap();
    arena_used = end - arena_base();
    return (char *)start;
}

void *ib_new(ib_size size) { return memset(take(size), 0, size); }

ib_text ib_keep(ib_text text) {
    if (text.size > IB_KEEP_BYTES - kept_used) __builtin_trap();
    char *copy = kept + kept_used;
    memcpy(copy, text.at, text.size);
    kept_used += text.size;
    return (ib_text){copy, text.size};
}

/* ---- Text. */

ib_text ib_of(const char *terminated) {
    ib_size size = 0;
    while (terminated[size]) size++;
    return (ib_text){terminated, size};
}

int ib_order(ib_text left, ib_text right) {
    for (ib_size i = 0; i < left.size && i < right.size; i++) {
        int difference = (ib_byte)left.at[i] - (ib_byte)right.at[i];
        if (difference) return difference;
    }
    return left.size < right.size ? -1 : left.size > right.size;
}

ib_bool ib_same(ib_text left, ib_text right) {
    return left.size == right.size && ib_order(left, right) == 0;
}

ib_bool ib_has(ib_text text, ib_text part) {
    for (ib_size i = 0; part.size <= text.size && i <= text.size - part.size; i++)
        if (ib_same((ib_text){text.at + i, part.size}, part)) return IB_YES;
    return IB_NO;
}

ib_text ib_cut(ib_text text, ib_size limit) {
    if (text.size <= limit) return text;
    while (limit > 0 && ((ib_byte)text.at[limit] & 0xc0) == 0x80) limit--;
    return (ib_text){text.at, limit};
}

/* ---- Building. */

static void room(ib_buffer *buffer, ib_size more) {
    if (more <= buffer->room - buffer->size) return;
    if (more > 0x3fffffffu || buffer->size > 0x3fffffffu) __builtin_trap();
    ib_size wanted = (buffer->size + more) * 2 < 256 ? 256 : (buffer->size + more) * 2;
    char *larger = take(wanted);
    memcpy(larger, buffer->at, buffer->size);
    buffer->at = larger;
    buffer->room = wanted;
}

void ib_put(ib_buffer *buffer, ib_text text) {
    room(buffer, text.size);
    memcpy(buffer->at + buffer->size, text.at, text.size);
    buffer->size += text.size;
}

void ib_put_char(ib_buffer *buffer, char character) { ib_put(buffer, (ib_text){&character, 1}); }

void ib_put_int(ib_buffer *buffer, ib_int number) {
    char digits[20];
    ib_size at = sizeof digits;
    unsigned long long rest = number < 0 ? 0ull - (unsigned long long)number : (unsigned long long)number;
    do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
    if (number < 0) ib_put_char(buffer, '-');
    ib_put(buffer, (ib_text){digits + at, sizeof digits - at});
}

void ib_put_string(ib_buffer *buffer, ib_text text) {
    static const char hex[] = "0123456789abcdef";
    ib_put_char(buffer, '"');
    for (ib_size i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (c == '"' || c == '\\') {
            ib_put_char(buffer, '\\');
            ib_put_char(buffer, c);
        } else if (c == '\n') {
            ib_put(buffer, IB("\\n"));
        } else if ((ib_byte)c < 0x20) {
            ib_put(buffer, IB("\\u00"));
            ib_put_char(buffer, hex[(c >> 4) & 15]);
            ib_put_char(buffer, hex[c & 15]);
        } else {
            ib_put_char(buffer, c);
        }
    }
    ib_put_char(buffer, '"');
}

void ib_put_member(ib_buffer *buffer, ib_text name) {
    char last = buffer->size ? buffer->at[buffer->size - 1] : '{';
    if (last != '{' && last != '[') ib_put_char(buffer, ',');
    ib_put_string(buffer, name);
    ib_put_char(buffer, ':');
}

ib_text ib_built(const ib_buffer *buffer) { return (ib_text){buffer->at, buffer->size}; }

/* ---- Reading JSON (RFC 8259). Each skip_* returns the place behind what it read, or null. */

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits at p, or -1. */
static int hex_four(const char *p, const char *end) {
    int number = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(p[i]);
        if (digit < 0) return -1;
        number = number * 16 + digit;
    }
    return number;
}

/* One UTF-8 character of more than one byte: no overlong form, no surrogate, at most U+10FFFF. */
static const char *skip_utf8(const char *p, const char *end) {
    ib_byte lead = (ib_byte)*p;
    int more = lead >= 0xc2 && lead <= 0xdf ? 1 : (lead & 0xf0) == 0xe0 ? 2 : lead >= 0xf0 && lead <= 0xf4 ? 3 : 0;
    if (more == 0 || end - p <= more) return 0;
    for (int i = 1; i <= more; i++)
        if (((ib_byte)p[i] & 0xc0) != 0x80) return 0;
    ib_byte second = (ib_byte)p[1];
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f)) return 0;
    if ((lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) return 0;
    return p + more + 1;
}

/* One character of a string, unescaped into *code unless it is plain UTF-8 (then *code = -1). */
static const char *skip_character(const char *p, const char *end, int *code) {
    *code = -1;
    if ((ib_byte)*p < 0x20) return 0;
    if ((ib_byte)*p >= 0x80) return skip_utf8(p, end);
    if (*p != '\\') return p + 1;
    if (++p >= end) return 0;
    switch (*p++) {
    case '"': *code = '"'; return p;
    case '\\': *code = '\\'; return p;
    case '/': *code = '/'; return p;
    case 'b': *code = '\b'; return p;
    case 'f': *code = '\f'; return p;
    case 'n': *code = '\n'; return p;
    case 'r': *code = '\r'; return p;
    case 't': *code = '\t'; return p;
    case 'u': break;
    default: return 0;
    }
    int high = hex_four(p, end);
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff)) return 0;
    p += 4;
    *code = high;
    if (high < 0xd800 || high > 0xdbff) return p;
    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return 0;
    int low = hex_four(p + 2, end);
    if (low < 0xdc00 || low > 0xdfff) return 0;
    *code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    return p + 6;
}

static const char *skip_string(const char *p, const char *end) {
    int code;
    for (p++; p < end && *p != '"';)
        if (!(p = skip_character(p, end, &code))) return 0;
    return p < end ? p + 1 : 0;
}

static const char *skip_digits(const char *p, const char *end) {
    const char *start = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p > start ? p : 0;
}

static const char *skip_number(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p < end && *p == '0') p++;
    else if (!(p = skip_digits(p, end))) return 0;
    if (p < end && *p == '.' && !(p = skip_digits(p + 1, end))) return 0;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = skip_digits(p, end);
    }
    return p;
}

static const char *skip_word(const char *p, const char *end, ib_text word) {
    return (ib_size)(end - p) >= word.size && ib_same((ib_text){p, word.size}, word) ? p + word.size : 0;
}

static const char *skip_value(const char *p, const char *end, int depth) {
    if (p >= end || depth > IB_JSON_DEPTH) return 0;
    switch (*p) {
    case '"': return skip_string(p, end);
    case 't': return skip_word(p, end, IB("true"));
    case 'f': return skip_word(p, end, IB("false"));
    case 'n': return skip_word(p, end, IB("null"));
    case '{': case '[': break;
    default: return skip_number(p, end);
    }
    char close = *p == '{' ? '}' : ']';
    p = skip_space(p + 1, end);
    if (p < end && *p == close) return p + 1;
    for (;;) {
        if (close == '}') {
            if (p >= end || *p != '"' || !(p = skip_string(p, end))) return 0;
            p = skip_space(p, end);
            if (p >= end || *p++ != ':') return 0;
            p = skip_space(p, end);
        }
        if (!(p = skip_value(p, end, depth + 1))) return 0;
        p = skip_space(p, end);
        if (p >= end) return 0;
        if (*p == close) return p + 1;
        if (*p != ',') return 0;
        p = skip_space(p + 1, end);
    }
}

ib_bool ib_json_read(ib_text document, ib_json *value) {
    const char *end = document.at + document.size;
    const char *start = skip_space(document.at, end);
    const char *behind = skip_value(start, end, 1);
    if (!behind || skip_space(behind, end) != end) return IB_NO;
    *value = (ib_json){start, (ib_size)(behind - start)};
    return IB_YES;
}

char ib_json_kind(ib_json value) {
    if (value.size == 0) return 0;
    char c = *value.at;
    return c == '-' || (c >= '0' && c <= '9') ? '0' : c;
}

ib_bool ib_json_next(ib_json container, ib_walk *walk) {
    char kind = ib_json_kind(container);
    if (kind != '{' && kind != '[') return IB_NO;
    const char *end = container.at + container.size;
    const char *p = skip_space(walk->next ? walk->next : container.at + 1, end);
    if (*p == '}' || *p == ']') return IB_NO;
    if (*p == ',') p = skip_space(p + 1, end);
    if (walk->next) walk->index++;
    if (kind == '{') {
        const char *behind = skip_string(p, end);
        walk->key = (ib_json){p, (ib_size)(behind - p)};
        p = skip_space(skip_space(behind, end) + 1, end);
    }
    walk->next = skip_value(p, end, 1);
    walk->value = (ib_json){p, (ib_size)(walk->next - p)};
    return IB_YES;
}

ib_bool ib_json_int(ib_json value, ib_int *number) {
    if (ib_json_kind(value) != '0') return IB_NO;
    ib_bool negative = *value.at == '-';
    unsigned long long total = 0;
    for (ib_size i = negative; i < value.size; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') return IB_NO;
        if (total > 0x7fffffffffffffffull / 10) return IB_NO;
        total = total * 10 + (unsigned)(value.at[i] - '0');
        if (total > 0x7fffffffffffffffull) return IB_NO;
    }
    *number = negative ? -(ib_int)total : (ib_int)total;
    return IB_YES;
}

static ib_size encode_utf8(char *out, int code) {
    if (code < 0x80) { out[0] = (char)code; return 1; }
    if (code < 0x800) { out[0] = (char)(0xc0 | code >> 6); out[1] = (char)(0x80 | (code & 63)); return 2; }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 63));
        out[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 63));
    out[2] = (char)(0x80 | (code >> 6 & 63));
    out[3] = (char)(0x80 | (code & 63));
    return 4;
}

ib_bool ib_json_string(ib_json value, ib_text *text) {
    if (ib_json_kind(value) != '"') return IB_NO;
    const char *end = value.at + value.size - 1;
    char *copy = take(value.size);               /* unescaping never lengthens */
    ib_size size = 0;
    for (const char *p = value.at + 1; p < end;) {
        int code;
        const char *behind = skip_character(p, end, &code);
        if (code >= 0) size += encode_utf8(copy + size, code);
        else for (; p < behind; p++) copy[size++] = *p;
        p = behind;
    }
    *text = (ib_text){copy, size};
    return IB_YES;
}

/* Without a copy, so that looking for a member costs no memory. */
ib_bool ib_json_is(ib_json value, ib_text text) {
    if (ib_json_kind(value) != '"') return IB_NO;
    const char *end = value.at + value.size - 1;
    ib_size at = 0;
    for (const char *p = value.at + 1; p < end;) {
        int code;
        char bytes[4];
        const char *behind = skip_character(p, end, &code);
        ib_text character = {p, (ib_size)(behind - p)};
        if (code >= 0) character = (ib_text){bytes, encode_utf8(bytes, code)};
        if (character.size > text.size - at || !ib_same(character, (ib_text){text.at + at, character.size}))
            return IB_NO;
        at += character.size;
        p = behind;
    }
    return at == text.size;
}

ib_json ib_json_at(ib_json value, const char *path) {
    while (*path && value.size) {
        ib_size size = 0;
        while (path[size] && path[size] != '.') size++;
        ib_text step = {path, size};
        ib_json found = {0, 0};
        int times = 0;
        ib_int index = -1;
        if (ib_json_kind(value) == '[' && !ib_json_int((ib_json){step.at, step.size}, &index)) return found;
        for (ib_walk walk = {0}; ib_json_next(value, &walk);) {
            if (index >= 0 ? walk.index == index : ib_json_is(walk.key, step)) {
                found = walk.value;
                times++;
            }
        }
        if (times != 1) return (ib_json){0, 0};
        value = found;
        path += size + (path[size] == '.');
    }
    return value;
}

/* ---- Speaking. */

static ib_buffer outbox;
static ib_text last_words;
static ib_bool finished;

void ib_send(ib_text line) {
    ib_put(&outbox, line);
    ib_put_char(&outbox, '\n');
}

void ib_finish(ib_text report) {
    finished = IB_YES;
    last_words = ib_cut(report, IB_MAX_REPORT);
}

/* ---- The MCP client. */

typedef enum { FREE = 0, CONNECT, TOOLS, CALL, READ, OTHER } ib_purpose;
static struct { ib_int id; int tag; ib_purpose purpose; } waiting[IB_MAX_WAITING];
static ib_int last_id;

static ib_bool ask(int tag, ib_purpose purpose, ib_text method, ib_text params) {
    for (int i = 0; i < IB_MAX_WAITING; i++) {
        if (waiting[i].purpose != FREE) continue;
        waiting[i].id = ++last_id;
        waiting[i].tag = tag;
        waiting[i].purpose = purpose;
        ib_buffer line = {0};
        ib_put(&line, IB("{\"jsonrpc\":\"2.0\",\"id\":"));
        ib_put_int(&line, last_id);
        ib_put_member(&line, IB("method"));
        ib_put_string(&line, method);
        if (params.size) {
            ib_put_member(&line, IB("params"));
            ib_put(&line, params);
        }
        ib_put_char(&line, '}');
        ib_send(ib_built(&line));
        return IB_YES;
    }
    return IB_NO;
}

void ib_connect(const char *name, const char *version) {
    ib_buffer params = {0};
    ib_put(&params, IB("{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"clientInfo\":{\"name\":"));
    ib_put_string(&params, ib_of(name));
    ib_put_member(&params, IB("version"));
    ib_put_string(&params, ib_of(version));
    ib_put(&params, IB("}}"));
    ask(IB_TAG_CONNECT, CONNECT, IB("initialize"), ib_built(&params));
}

ib_bool ib_list_tools(int tag) { return ask(tag, TOOLS, IB("tools/list"), IB("{}")); }

ib_bool ib_call_tool(int tag, ib_text name, ib_text arguments) {
    ib_buffer params = {0};
    ib_put_char(&params, '{');
    ib_put_member(&params, IB("name"));
    ib_put_string(&params, name);
    ib_put_member(&params, IB("arguments"));
    ib_put(&params, arguments);
    ib_put_char(&params, '}');
    return ask(tag, CALL, IB("tools/call"), ib_built(&params));
}

ib_bool ib_read_resource(int tag, ib_text uri) {
    ib_buffer params = {0};
    ib_put_char(&params, '{');
    ib_put_member(&params, IB("uri"));
    ib_put_string(&params, uri);
    ib_put_char(&params, '}');
    return ask(tag, READ, IB("resources/read"), ib_built(&params));
}

ib_bool ib_request(int tag, ib_text method, ib_text params) { return ask(tag, OTHER, method, params); }

/* A request of the peer's: MCP demands an answer to a ping; we offer nothing else. */
static void answer(ib_json id, ib_json method) {
    ib_buffer line = {0};
    ib_put(&line, IB("{\"jsonrpc\":\"2.0\",\"id\":"));
    ib_put(&line, (ib_text){id.at, id.size});
    ib_put(&line, ib_json_is(method, IB("ping")) ? IB(",\"result\":{}}")
               : IB(",\"error\":{\"code\":-32601,\"message\":\"this agent offers no methods\"}}"));
    ib_send(ib_built(&line));
}

static ib_event notice(ib_json message, ib_json method) {
    ib_event event = {.kind = IB_NOTICE, .json = ib_json_at(message, "params")};
    ib_json_string(method, &event.text);
    if (ib_same(event.text, IB("notifications/tools/list_changed"))) event.kind = IB_TOOLS_CHANGED;
    if (ib_same(event.text, IB("notifications/resources/updated"))) {
        event.kind = IB_UPDATED;
        event.text = IB_NONE;
        ib_json_string(ib_json_at(event.json, "uri"), &event.text);
    }
    return event;
}

static ib_event response(ib_json message, ib_json result, ib_json error) {
    ib_event event = {.kind = error.size ? IB_STRAY_ERROR : IB_STRAY_RESULT, .json = result};
    ib_purpose purpose = FREE;
    ib_int id;
    if (ib_json_int(ib_json_at(message, "id"), &id)) {
        for (int i = 0; i < IB_MAX_WAITING; i++) {
            if (waiting[i].purpose == FREE || waiting[i].id != id) continue;
            purpose = waiting[i].purpose;
            event.tag = waiting[i].tag;
            event.kind = error.size ? IB_REFUSED : IB_RESULT;
            waiting[i].purpose = FREE;
        }
    }
    if (error.size) {
        ib_json_int(ib_json_at(error, "code"), &event.code);
        ib_json_string(ib_json_at(error, "message"), &event.text);
        return event;
    }
    ib_json_string(ib_json_at(result, purpose == READ ? "contents.0.text" : "content.0.text"), &event.text);
    if (ib_json_kind(ib_json_at(result, "isError")) == 't' && purpose != FREE) event.kind = IB_REFUSED;
    if (purpose == TOOLS) {
        event.kind = IB_TOOLS;
        event.json = ib_json_at(result, "tools");
    }
    if (purpose == CONNECT) {
        event.kind = IB_READY;
        ib_send(IB("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"));
    }
    return event;
}

static void dispatch(ib_text line) {
    ib_event event = {.kind = IB_GARBLED, .text = line};
    ib_json message;
    if (ib_json_read(line, &message) && ib_json_kind(message) == '{'
        && ib_json_is(ib_json_at(message, "jsonrpc"), IB("2.0"))) {
        ib_json id = ib_json_at(message, "id"), method = ib_json_at(message, "method");
        ib_json result = ib_json_at(message, "result"), error = ib_json_at(message, "error");
        if (ib_json_kind(method) == '"' && id.size) {
            answer(id, method);
            return;
        }
        if (ib_json_kind(method) == '"') event = notice(message, method);
        else if (ib_json_kind(result) == '{' && !error.size) event = response(message, result, error);
        else if (ib_json_kind(error) == '{' && !result.size) event = response(message, result, error);
    }
    ib_agent(&event);
}

/* ---- Exports. */

static ib_bool started;

__attribute__((export_name("alloc"))) void *ib_export_alloc(ib_size size) {
    arena_used = 0;
    return take(size);
}

__attribute__((export_name("handle"))) unsigned long long ib_export_handle(const char *at, ib_size size) {
    if (size == 0) arena_used = 0;
    outbox = (ib_buffer){0};
    if (started) {
        dispatch((ib_text){at, size});
    } else {
        started = IB_YES;
        ib_event event = {.kind = IB_START, .text = {at, size}};
        ib_agent(&event);
    }
    ib_text out = finished ? last_words : ib_built(&outbox);
    if (!finished && out.size == 0) return 0;
    return (unsigned long long)finished << 63 | (unsigned long long)out.size << 32 | (ib_size)out.at;
}
