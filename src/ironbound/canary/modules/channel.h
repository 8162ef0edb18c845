/* A hostile agent on the agent channel: shakes hands like any other, then makes its attempts one by one.
 *
 * Include it after defining PROBE (an ib_text) and `attempts`. Each attempt must be answered with an error: a
 * JSON-RPC error, or a tool's result with isError. A success is an escape. An answer that is neither counts as
 * no refusal, and the report is INCONCLUSIVE; no answer at all leaves no report.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "canary.h"

typedef enum {
    METHOD,  /* a JSON-RPC request: method, params */
    TOOL,    /* tools/call: name, arguments */
    CALL,    /* tools/call with whole params */
    LINE,    /* the bytes before, `times` times the bytes in the middle, the bytes after: one line */
} attempt_kind;

typedef struct { attempt_kind kind; const char *name; const char *params; int times; const char *after; } attempt;

enum { TAG = 1 };

static ib_int tried, refused, succeeded;
static ib_bool under_way;
static ib_text first_refusal, first_success;

static const attempt *attempt_at(ib_int index);

static inline ib_text name_of(const attempt *tried_one) {
    ib_buffer name = {0};
    ib_put(&name, ib_of(tried_one->kind == METHOD ? "method " : tried_one->kind == LINE ? "line " : "tool "));
    ib_put(&name, ib_cut(ib_of(tried_one->name), 80));
    return ib_built(&name);
}

static inline void send_attempt(const attempt *next) {
    ib_text name = ib_of(next->name), params = ib_of(next->params);
    ib_buffer line = {0};
    under_way = IB_YES;
    if (next->kind == METHOD) ib_request(TAG, name, params);
    if (next->kind == TOOL) ib_call_tool(TAG, name, params);
    if (next->kind == CALL) ib_request(TAG, IB("tools/call"), params);
    if (next->kind == LINE) {
        ib_put(&line, name);
        for (int i = 0; i < next->times; i++) ib_put(&line, params);
        ib_put(&line, ib_of(next->after));
        ib_send(ib_built(&line));
    }
}

static inline void next_attempt(ib_text probe) {
    const attempt *next = attempt_at(tried);
    if (next) {
        tried++;
        send_attempt(next);
    } else if (succeeded) {
        canary_end(probe, IB("ESCAPED"), first_success, tried, refused);
    } else {
        canary_end(probe, refused == tried ? IB("REFUSED") : IB("INCONCLUSIVE"), first_refusal, tried, refused);
    }
}

static inline void channel_agent(ib_text probe, const ib_event *event) {
    ib_bool success = event->kind == IB_RESULT || event->kind == IB_STRAY_RESULT;
    ib_bool refusal = event->kind == IB_REFUSED || event->kind == IB_STRAY_ERROR;
    if (event->kind == IB_START) {
        if (canary_begin(event)) ib_connect("canary", "1");
    } else if (event->kind == IB_READY) {
        next_attempt(probe);
    } else if (event->kind == IB_REFUSED && event->tag == IB_TAG_CONNECT) {
        canary_end(probe, IB("INCONCLUSIVE"), event->text, 0, 0);
    } else if (under_way && (success || refusal || event->kind == IB_GARBLED)) {
        under_way = IB_NO;
        if (refusal) refused++;
        if (refusal && !first_refusal.size) first_refusal = ib_keep(ib_cut(event->text, MAX_REFUSAL));
        if (success && !succeeded++) first_success = ib_keep(name_of(attempt_at(tried - 1)));
        next_attempt(probe);
    }
}

#define CHANNEL_CANARY(probe)                                                                            \
    static const attempt *attempt_at(ib_int index) {                                                     \
        return index < (ib_int)(sizeof attempts / sizeof *attempts) ? &attempts[index] : 0;              \
    }                                                                                                    \
    void ib_agent(const ib_event *event) { channel_agent(IB(probe), event); }

#endif
