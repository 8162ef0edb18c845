/* Ironbound SDK for agents in C: core WebAssembly with an empty import section, and no C library.
 *
 * An agent is one function, ib_agent. The SDK exports what the sandbox worker calls: `memory`, `alloc` and
 * `handle`. The worker calls `handle` once with the start message (empty for most agents) and then once for
 * each line that comes in on the agent channel. What the agent says goes out when ib_agent returns. There is
 * no other way out of the sandbox: no clock, no randomness, no files, no sockets.
 *
 * Rule 1: memory from the SDK lives until the next message. Keep what must live longer in static variables,
 *         copied with ib_keep.
 * Rule 2: running out of memory is a trap, which ends the agent. No function returns a null block.
 * Rule 3: what comes in is parsed strictly (RFC 8259, UTF-8) before the agent sees it; a line that isn't
 *         JSON arrives as IB_GARBLED, never as something guessed.
 *
 * Formats: JSON-RPC 2.0; Model Context Protocol 2025-11-25 (client side), one message a line.
 */
#ifndef IRONBOUND_H
#define IRONBOUND_H

typedef unsigned char ib_byte;
typedef unsigned int ib_size;
typedef long long ib_int;
typedef enum { IB_NO = 0, IB_YES = 1 } ib_bool;

/* ---- Text: a slice of bytes somewhere in memory, not terminated. */
typedef struct { const char *at; ib_size size; } ib_text;

#define IB(literal) ((ib_text){(literal), sizeof(literal) - 1})
#define IB_NONE ((ib_text){0, 0})

ib_text ib_of(const char *terminated);                 /* the bytes up to the NUL */
ib_bool ib_same(ib_text left, ib_text right);
ib_bool ib_has(ib_text text, ib_text part);            /* part occurs in text */
ib_text ib_cut(ib_text text, ib_size limit);           /* at most `limit` bytes, never half a UTF-8 character */
int ib_order(ib_text left, ib_text right);             /* by bytes: negative, 0 or positive */

/* ---- Memory. */
#ifndef IB_KEEP_BYTES
#define IB_KEEP_BYTES (256 * 1024)
#endif
void *ib_new(ib_size size);                            /* zeroed, 16-byte aligned, until the next message */
ib_text ib_keep(ib_text text);                         /* a copy that stays; IB_KEEP_BYTES in all, then a trap */

/* ---- Building text. A buffer starts as {0}; it grows as needed, until the next message. */
typedef struct { char *at; ib_size size, room; } ib_buffer;

void ib_put(ib_buffer *buffer, ib_text text);
void ib_put_char(ib_buffer *buffer, char character);
void ib_put_int(ib_buffer *buffer, ib_int number);
void ib_put_string(ib_buffer *buffer, ib_text text);   /* as a JSON string, quoted and escaped */
void ib_put_member(ib_buffer *buffer, ib_text name);   /* `"name":`, with a comma first unless after { or [ */
ib_text ib_built(const ib_buffer *buffer);

/* ---- Reading JSON. A value is a slice of a document that ib_json_read found to be strict JSON. */
typedef struct { const char *at; ib_size size; } ib_json;
typedef struct { const char *next; ib_json key, value; ib_size index; } ib_walk;  /* starts as {0} */

enum { IB_JSON_DEPTH = 64 };                           /* arrays and objects within each other */

ib_bool ib_json_read(ib_text document, ib_json *value);      /* the whole text is one value, or IB_NO */
char ib_json_kind(ib_json value);                      /* one of { [ " 0 t f n, or 0 for no value */
ib_json ib_json_at(ib_json value, const char *path);   /* "result.content.0.text"; no value if absent or doubled */
ib_bool ib_json_int(ib_json value, ib_int *number);    /* an integer without fraction or exponent, in range */
ib_bool ib_json_string(ib_json value, ib_text *text);  /* unescaped; the copy lives until the next message */
ib_bool ib_json_is(ib_json value, ib_text text);       /* it is this string */
ib_bool ib_json_next(ib_json container, ib_walk *walk);      /* the next member or element into walk->value */

/* ---- Speaking. */
void ib_send(ib_text line);                            /* one line on the channel, as it is */
void ib_finish(ib_text report);                        /* ends the agent; its report, cut to 4096 bytes, is kept
                                                          by the node. Nothing said in the same turn is sent. */

/* ---- The MCP client. Each request carries a tag of the agent's own; the answer's event brings it back. */
enum { IB_TAG_CONNECT = -1, IB_MAX_WAITING = 32, IB_MAX_REPORT = 4096 };

void ib_connect(const char *name, const char *version);      /* the handshake; IB_READY when it is done */
ib_bool ib_list_tools(int tag);                        /* IB_TOOLS; json = the tools, of the first page where there are more */
ib_bool ib_call_tool(int tag, ib_text name, ib_text arguments);   /* IB_RESULT; arguments are a JSON object */
ib_bool ib_read_resource(int tag, ib_text uri);        /* IB_RESULT; text = the first content's text */
ib_bool ib_request(int tag, ib_text method, ib_text params);      /* IB_RESULT; any method; params are JSON */
/* Each returns IB_NO, and sends nothing, when IB_MAX_WAITING requests are unanswered. */

typedef enum {
    IB_START,        /* the first event; text = the start message, possibly empty */
    IB_READY,        /* ib_connect: the handshake is done, `notifications/initialized` is sent */
    IB_TOOLS,        /* ib_list_tools: json = the tools */
    IB_RESULT,       /* the request succeeded: json = the result, text = the first content's text */
    IB_REFUSED,      /* the request failed: code and text as received; code 0 = the tool said isError */
    IB_STRAY_ERROR,  /* an error without an id, or with one that no request of ours has: code and text */
    IB_STRAY_RESULT, /* a result with an id that no request of ours has: json = the result */
    IB_TOOLS_CHANGED,/* the grants have changed: list the tools again */
    IB_UPDATED,      /* a resource has changed: text = its uri */
    IB_NOTICE,       /* any other notification: text = its method, json = its params */
    IB_GARBLED       /* a line that isn't a JSON-RPC message: text = the line */
} ib_kind;

typedef struct { ib_kind kind; int tag; ib_int code; ib_text text; ib_json json; } ib_event;

/* Yours to write. */
void ib_agent(const ib_event *event);

#endif
