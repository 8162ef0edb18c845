/* Resources: each is used up to its limit, given back, and never beyond a bound of the probe's own, so that it ends
 * within seconds also where there is no limit. argv[2] lowers that bound. */

enum { MEBIBYTE = 1 << 20 };

static void fork_bomb(void) {
    word most = at_most(4096), count = 0, child = 0;
    int ends[2];
    if (call(SYS_pipe, ends)) {
        never_reached("no pipe");
        return;
    }
    while (count < most && (child = call(SYS_fork)) > 0) count++;
    if (child == 0 && count < most) { /* waits until the parent has counted, or is gone */
        char byte;
        call(SYS_close, ends[1]);
        call(SYS_read, ends[0], &byte, 1);
        leave(0);
    }
    call(SYS_close, ends[1]);
    call(SYS_close, ends[0]);
    for (word i = 0; i < count; i++) call(SYS_wait4, -1, 0, 0, 0);
    attempt("fork", child, ERRORS(EAGAIN, ENOMEM));
}

static word eats_memory(void) {
    word most = at_most(8192);
    for (word i = 0; i < most; i++) {
        word part = call(SYS_mmap, 0, MEBIBYTE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x8000, -1, 0);
        if (failed(part)) return part;
        for (word at = 0; at < MEBIBYTE; at += 4096) *(volatile char *)(part + at) = 1;
    }
    return 0;
}
static void memory_bomb(void) {
    attempt("mmap", in_child(eats_memory), ERRORS(ENOMEM, EAGAIN, ENDED_BY(SIGKILL)));
}

static void many_descriptors(void) {
    word most = at_most(19000), first = 0, count = 0, one = 0;
    while (count < most && !failed(one = call(SYS_dup, REPORT))) {
        if (!count++) first = one;
    }
    if (count) call(SYS_close_range, first, 0x7FFFFFFF, 0);
    attempt("dup", one, ERRORS(EMFILE));
}

static void fill_scratch(void) {
    static char block[MEBIBYTE];
    word most = at_most(8192), got = 1, file;
    ignore_signal(25); /* SIGXFSZ: the error is enough */
    file = call(SYS_openat, AT_FDCWD, "/tmp/ironbound-fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (failed(file)) {
        without_file(file);
        return;
    }
    memset(block, 1, sizeof block);
    for (word i = 0; i < most && got > 0; i++) got = call(SYS_write, file, block, sizeof block);
    call(SYS_close, file);
    call(SYS_unlink, "/tmp/ironbound-fill");
    attempt("write", got, ERRORS(ENOSPC, EDQUOT, EFBIG));
}

static const char *numbered(word number) {
    static char room[48];
    text path = {room, 0, sizeof room - 1, NO};
    put(&path, "/tmp/ironbound-");
    put_number(&path, number);
    room[path.size] = 0;
    return room;
}

static word seconds(void) {
    word now[2] = {0, 0};
    call(SYS_clock_gettime, 1, now);
    return now[0];
}

static void fill_inodes(void) { /* gVisor's kernel makes files slowly: without a limit it stops after 8 seconds */
    word most = at_most(200000), count = 0, made = 0, last = seconds() + 8;
    while (count < most && (count % 64 || seconds() < last) &&
           !failed(made = opens(numbered(count), O_WRONLY | O_CREAT | O_EXCL)))
        count++;
    for (word i = 0; i < count; i++) call(SYS_unlink, numbered(i));
    if (!count && made != -ENOSPC && made != -EDQUOT) without_file(made);
    else attempt("create", made, ERRORS(ENOSPC, EDQUOT, EROFS));
}

static void lock_memory(void) {
    word size = 64 * MEBIBYTE;
    word part = call(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (failed(part)) {
        attempt("mmap", part, ERRORS(ENOMEM));
        return;
    }
    attempt("mlock", call(SYS_mlock, part, size), ERRORS(EPERM, ENOMEM, EAGAIN));
    call(SYS_munmap, part, size);
}

static word raises_limits(void) { /* core files: the plan allows none */
    u64 none[2] = {~0UL, ~0UL}, now[2] = {0, 0};
    word result = call(SYS_prlimit64, 0, 4, 0, now);
    if (result) return result;
    if (now[0] || now[1]) return 0;
    return call(SYS_prlimit64, 0, 4, none, 0);
}
static void raise_limit(void) { attempt("prlimit core unlimited", in_child(raises_limits), DENIED); }
