/* What every native probe shares: how an attempt is judged, and the report at the end.
 *
 * Rule 1: an attempt is REFUSED only by an error that the wall in question gives. Whatever else comes back, a success
 *         or an error of some later check, has got past the wall: ESCAPED. A call that this kernel does not have
 *         (ENOSYS), or a thing that is not there to be attacked, was never reached: INCONCLUSIVE.
 * Rule 2: what succeeds harms nothing and is undone. Nothing here holds anything back.
 * Rule 3: the report is one line on descriptor 2, with the nonce of this run.
 */
#ifndef REPORT_H
#define REPORT_H

enum { REPORT = 2, MAX_REFUSAL = 400, MAX_REPORT = 2048, STACK_ERRORS = 2000 };

/* A list of errors, and a pseudo error: the child that tried it was ended by this signal. */
#define ERRORS(...) ((const int[]){__VA_ARGS__, 0})
#define ENDED_BY(signal) (STACK_ERRORS + (signal))
#define SIGSYS 31
#define SIGSEGV 11

/* The filter's error, which is also the kernel's own where a capability is missing. */
#define DENIED ERRORS(EPERM)
/* A host's file: not there in a root of one's own, or read-only, or closed by Landlock or the file's owner. */
#define HIDDEN ERRORS(EPERM, EACCES, EROFS, ENOENT)

static word tried, refused, escaped, unreached;
static char refusals_room[MAX_REFUSAL], escapes_room[MAX_REFUSAL], gaps_room[MAX_REFUSAL];
static text refusals = {refusals_room, 0, MAX_REFUSAL, NO};
static text escapes = {escapes_room, 0, MAX_REFUSAL, NO};
static text gaps = {gaps_room, 0, MAX_REFUSAL, NO};
static const char *wanted_size; /* argv[2]: the most that a resource probe asks for, in its own unit */

static void note(text *to, const char *what, word result) {
    if (to->size) put(to, "; ");
    put(to, what);
    put(to, ": ");
    if (result <= -STACK_ERRORS && result > -STACK_ERRORS - 65) {
        put(to, "ended by ");
        if (result == -ENDED_BY(SIGSYS)) put(to, "SIGSYS: Bad system call");
        else if (result == -ENDED_BY(SIGKILL)) put(to, "SIGKILL: Killed");
        else if (result == -ENDED_BY(SIGSEGV)) put(to, "SIGSEGV: Segmentation fault");
        else {
            put(to, "signal ");
            put_number(to, -result - STACK_ERRORS);
        }
    } else if (failed(result)) {
        put_error(to, result);
    } else {
        put(to, "it was allowed");
    }
}

static boolean listed(const int *errors, word result) {
    for (; *errors; errors++)
        if (*errors == -result) return YES;
    return NO;
}

/* Judges one attempt. YES where it was allowed, and is to be undone. */
static boolean attempt(const char *what, word result, const int *refusing) {
    tried++;
    if (failed(result) && listed(refusing, result)) {
        refused++;
        note(&refusals, what, result);
    } else if (result == -ENOSYS) {
        unreached++;
        note(&gaps, what, result);
    } else {
        escaped++;
        note(&escapes, what, result);
    }
    return !failed(result);
}

/* An attempt that was refused or allowed in another way than by an error. */
static void judged(boolean was_refused, const char *what) {
    text *to = was_refused ? &refusals : &escapes;
    tried++;
    if (was_refused) refused++;
    else escaped++;
    if (to->size) put(to, "; ");
    put(to, what);
}

static void never_reached(const char *what) {
    tried++;
    unreached++;
    if (gaps.size) put(&gaps, "; ");
    put(&gaps, what);
}

/* There is no file of its own to try it with: where nothing can be written at all, that is the refusal. */
static void without_file(word made) {
    if (made == -EROFS) attempt("create in /tmp", made, ERRORS(EROFS));
    else never_reached("no file of its own in /tmp");
}

static word opened(word descriptor) {
    if (!failed(descriptor)) call(SYS_close, descriptor);
    return descriptor;
}

static word opens(const char *path, int flags) {
    return opened(call(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC | O_NONBLOCK, 0600));
}

static void try_open(const char *path, int flags) {
    char room[128];
    text what = {room, 0, sizeof room - 1, NO};
    put(&what, "open ");
    put(&what, path);
    room[what.size] = 0;
    attempt(room, opens(path, flags), HIDDEN);
}

/* Runs it in a child, which keeps what succeeds to itself. The result, or how the child was ended. */
static word in_child(word (*tries)(void)) {
    word *result = (word *)call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    word child, ended;
    if (failed((word)result)) return (word)result;
    *result = 0;
    child = call(SYS_fork);
    if (child == 0) {
        *result = tries();
        leave(0);
    }
    if (failed(child)) return child;
    do ended = call(SYS_wait4, child, &status, 0, 0);
    while (ended == -EINTR);
    ended = status & 0x7F ? -(word)ENDED_BY(status & 0x7F) : *result;
    call(SYS_munmap, result, 4096);
    return ended;
}

/* A process that is none of ours: the parent, or where there is none in this pid namespace, one that can't be. */
static word stranger(void) {
    word parent = call(SYS_getppid);
    return parent > 0 ? parent : 2;
}

/* "/proc/PID/" and the rest. */
static const char *of_stranger(const char *rest) {
    static char room[64];
    text path = {room, 0, sizeof room - 1, NO};
    put(&path, "/proc/");
    put_number(&path, stranger());
    put_char(&path, '/');
    put(&path, rest);
    room[path.size] = 0;
    return room;
}

static void ignore_signal(int number) {
    struct { u64 handler, flags, restorer, mask; } ignore = {1, 0, 0, 0};
    call(SYS_rt_sigaction, number, &ignore, 0, 8);
}

static word at_most(word most) {
    word value = 0;
    if (!wanted_size) return most;
    for (const char *digit = wanted_size; *digit >= '0' && *digit <= '9' && value < most; digit++)
        value = value * 10 + (*digit - '0');
    return value && value < most ? value : most;
}

static int report(const char *probe, const char *nonce) {
    char room[MAX_REPORT];
    text line = {room, 0, MAX_REPORT, NO};
    text *said = escaped ? &escapes : tried && refused == tried ? &refusals : &gaps;
    const char *verdict = escaped ? "ESCAPED" : tried && refused == tried ? "REFUSED" : "INCONCLUSIVE";
    if (!said->size) put(said, "nothing was tried");
    said->data[said->size < MAX_REFUSAL ? said->size : MAX_REFUSAL - 1] = 0;
    put(&line, "{\"nonce\":");
    put_string(&line, nonce);
    put(&line, ",\"probe\":");
    put_string(&line, probe);
    put(&line, ",\"refusal\":");
    put_string(&line, said->data);
    put(&line, ",\"refused\":");
    put_number(&line, refused);
    put(&line, ",\"tried\":");
    put_number(&line, tried);
    put(&line, ",\"verdict\":");
    put_string(&line, verdict);
    put(&line, "}\n");
    return !line.full && write_all(REPORT, line.data, line.size) ? 0 : 1;
}

#endif
