/* What the guard says on its control descriptor: one line of canonical JSON, and the end where it refuses. */
#ifndef WORDS_H
#define WORDS_H

enum { CONTROL = 2, REFUSED_STATUS = 1, EXEC_STATUS = 127, MAX_LINE = 16 * 1024, MAX_TEXT = 4000 };

static char line_room[MAX_LINE];

static text line_begin(void) { return (text){line_room, 0, MAX_LINE, NO}; }

/* A line that did not fit is not sent: half a word is none. */
static void line_send(text *line) {
    put_char(line, '\n');
    if (line->full || !write_all(CONTROL, line->data, line->size)) leave(REFUSED_STATUS);
}

__attribute__((noreturn)) static void refuse(const char *stage, const char *what) {
    text line = line_begin();
    put(&line, "{\"stage\":");
    put_string(&line, stage);
    put(&line, ",\"text\":");
    put_string(&line, what);
    put(&line, ",\"type\":\"refused\"}");
    line_send(&line);
    leave(REFUSED_STATUS);
}

/* The text for a refusal, where it takes more than one piece. Cut where it is too long. */
static char reason_room[MAX_TEXT];

static text reason_begin(const char *what) {
    text reason = {reason_room, 0, MAX_TEXT - 1, NO};
    put(&reason, what);
    return reason;
}

__attribute__((noreturn)) static void refuse_for(const char *stage, text *reason) {
    reason->data[reason->size] = 0;
    refuse(stage, reason->data);
}

__attribute__((noreturn)) static void refuse_error(const char *stage, const char *what, word result) {
    text reason = reason_begin(what);
    put(&reason, ": ");
    if (failed(result)) put_error(&reason, result);
    else put_number(&reason, result);
    refuse_for(stage, &reason);
}

__attribute__((noreturn)) static void refuse_number(const char *stage, const char *what, word number) {
    text reason = reason_begin(what);
    put_number(&reason, number);
    refuse_for(stage, &reason);
}

#endif
