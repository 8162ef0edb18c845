/* The guard: the first process in every native sandbox and microVM. It makes sure of the walls before the agent begins.
 *
 * It decides whether this sandbox is what the node says that it is, tells the node what it consumed, waits for the
 * node's release and becomes the agent. It builds no sandbox: the runtime did that around it. It does not judge the
 * configuration or the module; it hashes them. docs/formats.md has the plan and the words.
 *
 * Descriptors: 0 and 1 the agent channel, 2 the control channel, 3 the configuration, 4 the module, 5 the plan.
 *
 * Rule 1: whatever is not as expected is a refusal, told in one line, and the end. Nothing is skipped.
 * Rule 2: nothing of the agent runs before the node's release.
 * Rule 3: the agent gets the descriptors 0 to 4 and no other, and an environment of the plan's variables only.
 * Rule 4: what is acted upon is this program's own copy, of the very bytes that it checked.
 */
#include "kernel.h"

#include "words.h"

#include "sha256.h"

#include "plan.h"

#include "walls.h"

#include "attempts.h"

enum {
    CONFIG = 3, MODULE = 4, PLAN = 5, MAX_DESCRIPTOR = 1023,
    MAX_CONFIG = 1 << 20, MAX_MODULE = 1 << 20,
    SEALS = 0x1F, /* seal, shrink, grow, write, future write */
    PROC_MAGIC = 0x9FA0,
};

typedef struct {
    u64 device, inode, links;
    u32 mode, uid, gid, zero;
    u64 special;
    word size;
    u8 rest[88];
} file_status;

static plan the_plan;
static char plan_room[MAX_PLAN + 1];

static u32 kind_of(int descriptor, const char *stage, file_status *status) {
    word result = call(SYS_fstat, descriptor, status);
    if (result) {
        text reason = reason_begin("descriptor ");
        put_number(&reason, descriptor);
        put(&reason, ": ");
        put_error(&reason, result);
        refuse_for(stage, &reason);
    }
    return status->mode & S_IFMT;
}

/* A socket, or in a virtual machine a port. */
static void expect_channel(int descriptor, file_status *status) {
    u32 kind = kind_of(descriptor, "lockdown", status);
    if (kind != S_IFSOCK && kind != S_IFCHR)
        refuse_number("lockdown", "expected a socket or a port as descriptor ", descriptor);
}

static void check_descriptors(void) {
    file_status status;
    expect_channel(CONTROL, &status);
    expect_channel(0, &status);
    expect_channel(1, &status);
    for (word i = 0; i <= PLAN; i++) {
        word result = call(SYS_fcntl, i, F_SETFD, 0); /* the first five outlive the exec */
        if (result) refuse_number("lockdown", "expected the descriptors 0 to 5, without ", i);
    }
    /* gVisor takes what both share for non-blocking if it happens to take 1 in before 0. */
    for (word i = 0; i <= 1; i++) {
        word result = call(SYS_fcntl, i, F_SETFL, 0);
        if (result) refuse_error("lockdown", "make the channel wait", result);
    }
}

/* Where the kernel lists this process's descriptors whole: refuses any but the six, and is done. O_PATH ones are in it,
 * which poll(2) would not show. */
static boolean lists_no_other(void) {
    static union { u8 bytes[4096]; u64 aligned; } room;
    u64 system[15] = {0};
    word folder = call(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (failed(folder)) return NO;
    boolean whole = !call(SYS_fstatfs, folder, system) && system[0] == PROC_MAGIC;
    u64 found = 0;
    word got = 0;
    while (whole && (got = call(SYS_getdents64, folder, room.bytes, sizeof room.bytes)) > 0)
        for (word at = 0; at < got;) {
            const u8 *entry = room.bytes + at;
            char *name = (char *)entry + 19; /* struct linux_dirent64: inode, offset, size, kind, name */
            u64 number;
            at += entry[16] | entry[17] << 8;
            if (*name == '.') continue;
            if (!plan_number(&name, &number)) {
                whole = NO;
                break;
            }
            if (number > PLAN && number != (u64)folder)
                refuse_number("lockdown", "expected the descriptors 0 to 5 and no other, got ", (word)number);
            if (number <= PLAN) found |= (u64)1 << number;
        }
    return !call(SYS_close, folder) && whole && !got && found == (1 << (PLAN + 1)) - 1;
}

/* One by one where they are not listed. Inside gVisor, where a call costs a hundred times what it does on Linux, they
 * are: the thousand calls would take as long as all the rest. */
static void check_no_other(boolean linux) {
    if (linux || !lists_no_other()) {
        for (word i = PLAN + 1; i <= MAX_DESCRIPTOR; i++)
            if (call(SYS_fcntl, i, F_GETFD) != -EBADF)
                refuse_number("lockdown", "expected the descriptors 0 to 5 and no other, got ", i);
    }
    word result = call(SYS_close_range, MAX_DESCRIPTOR + 1, 0x7FFFFFFF, 0);
    if (result && result != -ENOSYS) refuse_error("lockdown", "close_range", result); /* gVisor wants signed ends */
}

/* gVisor does not pass seals on (EINVAL) and has no Landlock either; on Linux every seal has to be there. */
static void expect_sealed(int descriptor, const char *stage, boolean linux) {
    word seals = call(SYS_fcntl, descriptor, F_GET_SEALS);
    if (!linux && seals == -EINVAL) return;
    if (failed(seals)) refuse_error(stage, "expected a sealed memory file", seals);
    if ((seals & SEALS) != SEALS) refuse_number(stage, "expected a memory file with every seal, got the seals ", seals);
}

static word size_of(int descriptor, const char *stage, word limit) {
    file_status status;
    if (kind_of(descriptor, stage, &status) != S_IFREG) refuse(stage, "expected a memory file");
    if (status.size < 1 || status.size > limit)
        refuse_number(stage, "expected a file of at least 1 byte and not too large, got ", status.size);
    return status.size;
}

/* Reads up to `room` bytes at `offset`; refuses where there are none. */
static word read_part(int descriptor, const char *stage, void *to, word room, word offset) {
    word got;
    do got = call(SYS_pread64, descriptor, to, room, offset);
    while (got == -EINTR);
    if (failed(got)) refuse_error(stage, "read", got);
    if (got == 0 || got > room) refuse(stage, "the file ended before its size");
    return got;
}

static void digest_of(int descriptor, const char *stage, boolean linux, word limit, char *hex) {
    static u8 part[4096];
    sha256 hash;
    expect_sealed(descriptor, stage, linux);
    word size = size_of(descriptor, stage, limit), done = 0;
    sha256_begin(&hash);
    while (done < size) {
        word left = size - done;
        word got = read_part(descriptor, stage, part, left < COUNT(part) ? left : COUNT(part), done);
        sha256_more(&hash, part, (u64)got);
        done += got;
    }
    sha256_end(&hash, hex);
}

static void read_plan(void) {
    word size = size_of(PLAN, "lockdown", MAX_PLAN), done = 0;
    while (done < size) done += read_part(PLAN, "lockdown", plan_room + done, size - done, done);
    const char *expected = plan_parse(&the_plan, plan_room, size);
    if (expected) {
        text reason = reason_begin("the plan: expected ");
        put(&reason, expected);
        refuse_for("lockdown", &reason);
    }
    expect_sealed(PLAN, "lockdown", the_plan.landlock);
}

/* One channel, not two: the agent's input and output are the same socket (gVisor shows its own numbers). */
static void check_channel(void) {
    file_status in, out;
    expect_channel(0, &in);
    expect_channel(1, &out);
    if (the_plan.landlock && (in.device != out.device || in.inode != out.inode))
        refuse("lockdown", "expected one channel as descriptors 0 and 1, got two");
}

static void say_ready(const char *config, const char *module) {
    text line = line_begin();
    put(&line, "{\"config_sha256\":");
    put_string(&line, config);
    put(&line, ",\"module_sha256\":");
    put_string(&line, module);
    put(&line, ",\"probes\":[");
    probes.data[probes.size] = 0;
    put(&line, probes.data);
    put(&line, "],\"type\":\"ready\"}");
    line_send(&line);
}

/* Exactly "release" and a newline; an end or anything else is no release. */
static void wait_for_release(void) {
    static const char expected[] = "release\n";
    char heard[8];
    for (word at = 0; at < COUNT(heard);) {
        word got;
        do got = call(SYS_read, CONTROL, heard, COUNT(heard) - at);
        while (got == -EINTR);
        if (got < 1 || got > COUNT(heard) - at) leave(REFUSED_STATUS);
        if (memcmp(heard, expected + at, (u64)got)) refuse("lockdown", "expected the word release");
        at += got;
    }
}

__attribute__((noreturn)) static void become_agent(void) {
    word result = call(SYS_close, PLAN);
    if (result) refuse_error("lockdown", "close", result);
    result = call(SYS_chdir, the_plan.folder);
    text line = reason_begin("guard: ");
    if (result) {
        put(&line, "chdir ");
        put(&line, the_plan.folder);
    } else {
        result = call(SYS_execve, the_plan.arguments[0], the_plan.arguments, the_plan.variables);
        put(&line, "execve ");
        put(&line, the_plan.arguments[0]);
    }
    put(&line, ": ");
    put_error(&line, result);
    line.size = line.size < line.limit ? line.size : line.limit - 1;
    put_char(&line, '\n');
    write_all(CONTROL, line.data, line.size);
    leave(EXEC_STATUS);
}

int program(long argc, char **argv, char **envp) {
    static char config[65], module[65];
    (void)argc, (void)argv, (void)envp; /* the plan says everything */
    check_descriptors();                                                               /* (1) */
    read_plan();                                                                       /* (2) */
    check_no_other(the_plan.landlock);
    check_channel();
    digest_of(CONFIG, "config", the_plan.landlock, MAX_CONFIG, config);                /* (3) */
    digest_of(MODULE, "module", the_plan.landlock, MAX_MODULE, module);
    set_limits(&the_plan);                                                             /* (4) */
    expect_no_capabilities(the_plan.landlock);                                         /* (5) */
    set_no_new_privs();
    reset_signals();
    call(SYS_umask, 077);
    /* runc gives a mount the mode of its mount point. Nobody but root can change a /tmp that is not their own. */
    if (call(SYS_getuid) != 0) call(SYS_chmod, "/tmp", 0700);
    probe_begin();
    probe_landlock(restrict_by_landlock(the_plan.landlock));                           /* (6) */
    install_filter(&the_plan);                                                         /* (7) */
    probe_filter();                                                                    /* (8) */
    if (escapes.size) {
        escapes.data[escapes.size] = 0;
        refuse("probe", escapes.data);
    }
    if (probes.full || probes.size >= MAX_LINE) refuse("probe", "the probes' answers do not fit in a line");
    say_ready(config, module);                                                         /* (9) */
    wait_for_release();                                                                /* (10) */
    become_agent();                                                                    /* (11) */
}
