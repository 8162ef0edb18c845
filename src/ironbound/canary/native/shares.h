/* What is given by the second: computing time and messages. How much that is, stands in the approved configuration on
 * descriptor 3; argv[2] says it instead. A probe that got less than it may have shows nothing of the wall but that it
 * was not passed, so each asks for a multiple. */

enum {
    BURNERS = 16, SLICES = 20 * 1000, SLICES_IN_MS = 20, CONFIGURED_DEPTH = 2, BATCH = 20, PATIENCE_MS = 5000,
    MOST_CONFIG = 32 * 1024,
};

static word milliseconds(void) {
    word now[2] = {0, 0};
    call(SYS_clock_gettime, 1, now);
    return now[0] * 1000 + now[1] / 1000000;
}

static const char *configuration(void) {
    static char room[MOST_CONFIG + 1];
    word size = call(SYS_pread64, 3, room, MOST_CONFIG, 0);
    room[failed(size) ? 0 : size] = 0;
    return room;
}

/* A number of the configuration, 0 where there is none. */
static word configured(const char *name) {
    word value = 0;
    const char *digit = wanted_size ? wanted_size : member(configuration(), name, CONFIGURED_DEPTH);
    for (; digit && *digit >= '0' && *digit <= '9' && value < 1000000; digit++) value = value * 10 + (*digit - '0');
    return value;
}

/* The processor's own clock: what a kernel in user space or in a machine counts of its processes is not the host's. */
static u64 cycles(void) {
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

static u64 cycles_in_ms(void) {
    word began = milliseconds(), took;
    u64 first = cycles();
    call(SYS_poll, 0, 0, 50);
    took = milliseconds() - began;
    return (cycles() - first) / (u64)(took ? took : 1);
}

static void say_share(text *to, const char *words, word got, const char *unit, word of, const char *end) {
    put(to, words);
    put_number(to, got);
    put(to, unit);
    put_number(to, of);
    put(to, end);
    to->data[to->size] = 0;
}

/* What the processes that compute at once share: the beginning, and in which slice of time which of them ran. */
typedef struct { volatile u64 origin; volatile u8 ran[BURNERS][SLICES]; } computed;

static void compute(computed *all, word mine, u64 slice) {
    while (!all->origin) continue;
    for (u64 at = 0; at < SLICES; at = (cycles() - all->origin) / slice) all->ran[mine][at] = 1;
}

/* As many processes as it may have compute for a second: how many ran at the same time, in percent. */
static word computing_at_once(void) {
    computed *all = (computed *)call(SYS_mmap, 0, sizeof(computed), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    word count = 0, child = 0, ran = 0;
    u64 slice = cycles_in_ms() / SLICES_IN_MS;
    if (failed((word)all) || !slice) return 0;
    while (count < BURNERS && (child = call(SYS_fork)) > 0) count++;
    if (!child && count < BURNERS) {
        compute(all, count, slice);
        leave(0);
    }
    all->origin = cycles();
    for (word i = 0; i < count; i++) call(SYS_wait4, -1, 0, 0, 0);
    for (word i = 0; i < count; i++)
        for (word at = 0; at < SLICES; at++) ran += all->ran[i][at];
    call(SYS_munmap, all, sizeof(computed));
    return ran * 100 / SLICES;
}

/* A quarter more than the share is the measure of both the kernel's and ours. */
static void compute_beyond(void) {
    static char room[128];
    text said = {room, 0, sizeof room - 1, NO};
    word share = configured("max_cpu"), got = share ? computing_at_once() : 0;
    if (!got) {
        never_reached(share ? "no process to compute in" : "no share of computing time in the configuration");
        return;
    }
    boolean held = got * 4 <= share * 5 + 4;
    say_share(&said, held ? "no more than its share: " : "more than its share: ", got, " % of a processor, may have ", share, " %");
    judged(held, room);
}

/* Three seconds' worth of requests at once: one second's are let through, the others have to wait. */
static void channel_rate(void) {
    static char lines[BATCH * 96], room[128];
    text said = {room, 0, sizeof room - 1, NO};
    word rate = configured("max_messages_per_second"), count = 0, took = 0, begin;
    boolean held = YES;
    if (!rate || !shake_hands()) {
        never_reached(rate ? "no handshake on the channel" : "no rate in the configuration");
        return;
    }
    begin = milliseconds();
    while (held && count < 3 * rate && took < PATIENCE_MS) {
        text batch = {lines, 0, sizeof lines, NO};
        for (word i = 0; i < BATCH; i++) request(&batch, count + i + 1, "ping", "{}");
        for (word i = say(&batch) ? 0 : BATCH + 1; i < BATCH; i++) {
            char *answer = next_answer();
            while (answer && !member(answer, "id", 1)) answer = next_answer();
            if (!answer) {
                never_reached("no answer on the channel");
                return;
            }
        }
        count += BATCH;
        took = milliseconds() - begin;
        held = count <= rate + rate * took * 11 / 10000 + BATCH / 2;
    }
    say_share(&said, held ? "no more than its rate: " : "more than its rate: ", count, " requests in ", took, " ms");
    judged(held, room);
}
