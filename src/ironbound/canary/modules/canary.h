/* What every hostile agent shares: the monitor's nonce, and the report at the end.
 *
 * A canary is started with {"nonce":"..."}. If the sandbox stops it, it just dies, and the enforcer's words are
 * the evidence. If it survives to notice a refusal or a success itself, it says so in its report, with the nonce.
 * Nothing here holds anything back: where an attempt works, the report is ESCAPED and the claim falls.
 */
#ifndef CANARY_H
#define CANARY_H

#include <ironbound.h>

enum { MAX_REFUSAL = 512 };

static ib_text nonce;

/* Takes the nonce out of the start message. Without one there is nothing to prove: the canary ends mute. */
static inline ib_bool canary_begin(const ib_event *event) {
    ib_json start;
    ib_text text;
    if (!ib_json_read(event->text, &start) || !ib_json_string(ib_json_at(start, "nonce"), &text)) {
        ib_finish(IB_NONE);
        return IB_NO;
    }
    nonce = ib_keep(text);
    return IB_YES;
}

static inline void canary_end(ib_text probe, ib_text verdict, ib_text refusal, ib_int tried, ib_int refused) {
    ib_buffer report = {0};
    ib_put_char(&report, '{');
    ib_put_member(&report, IB("nonce"));
    ib_put_string(&report, nonce);
    ib_put_member(&report, IB("probe"));
    ib_put_string(&report, probe);
    ib_put_member(&report, IB("verdict"));
    ib_put_string(&report, verdict);
    ib_put_member(&report, IB("refusal"));
    ib_put_string(&report, ib_cut(refusal, MAX_REFUSAL));
    ib_put_member(&report, IB("tried"));
    ib_put_int(&report, tried);
    ib_put_member(&report, IB("refused"));
    ib_put_int(&report, refused);
    ib_put_char(&report, '}');
    ib_finish(ib_built(&report));
}

static inline void canary_escaped(ib_text probe, ib_text what) { canary_end(probe, IB("ESCAPED"), what, 1, 0); }

#endif
