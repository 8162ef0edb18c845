/* Other processes: their memory, descriptors, roots and lives. Where the sandbox's first process is this probe itself,
 * there is nobody else in its pid namespace, and the answer is ESRCH or ENOENT. */

#define NOBODY_ELSE ERRORS(EPERM, EACCES, ESRCH, ENOENT)

static void trace_parent(void) {
    word result = call(SYS_ptrace, PTRACE_SEIZE, stranger(), 0, 0);
    if (attempt("ptrace PTRACE_SEIZE", result, ERRORS(EPERM, ESRCH))) call(SYS_ptrace, PTRACE_DETACH, stranger(), 0, 0);
}

static void trace_child(const char *what, word how) {
    word child = call(SYS_fork);
    if (child == 0)
        for (;;) call(SYS_poll, 0, 0, 5000);
    if (failed(child)) {
        never_reached("there was no sibling");
        return;
    }
    attempt(what, call(SYS_ptrace, how, child, 0, 0), DENIED);
    call(SYS_kill, child, SIGKILL);
    call(SYS_wait4, child, 0, 0, 0);
}

static void trace_sibling(void) {
    trace_child("ptrace PTRACE_SEIZE of a sibling", PTRACE_SEIZE);
    trace_child("ptrace PTRACE_ATTACH of a sibling", PTRACE_ATTACH);
}

static void read_other_memory(void) {
    char byte;
    struct { void *base; u64 size; } here = {&byte, 1}, there = {(void *)0x1000, 1};
    attempt("process_vm_readv", call(SYS_process_vm_readv, stranger(), &here, 1, &there, 1, 0), ERRORS(EPERM, ESRCH));
    attempt("open /proc/1/mem", opens(of_stranger("mem"), O_RDONLY), NOBODY_ELSE);
}

static void write_other_memory(void) {
    char byte = 0;
    struct { void *base; u64 size; } here = {&byte, 1}, there = {(void *)0x1000, 1};
    attempt("process_vm_writev", call(SYS_process_vm_writev, stranger(), &here, 1, &there, 1, 0), ERRORS(EPERM, ESRCH));
    attempt("open /proc/1/mem for writing", opens(of_stranger("mem"), O_RDWR), NOBODY_ELSE);
}

static void write_own_memory(void) { try_open("/proc/self/mem", O_RDWR); }

static void other_root(void) {
    attempt("open /proc/1/root", opens(of_stranger("root/."), O_RDONLY | O_DIRECTORY), NOBODY_ELSE);
    attempt("open /proc/1/cwd", opens(of_stranger("cwd/."), O_RDONLY | O_DIRECTORY), NOBODY_ELSE);
}

static void other_environment(void) {
    attempt("open /proc/1/environ", opens(of_stranger("environ"), O_RDONLY), NOBODY_ELSE);
    attempt("open /proc/1/maps", opens(of_stranger("maps"), O_RDONLY), NOBODY_ELSE);
}

static void take_descriptor(void) {
    word process = call(SYS_pidfd_open, stranger(), 0);
    if (failed(process)) {
        attempt("pidfd_open", process, ERRORS(EPERM, ESRCH, EINVAL));
        return;
    }
    attempt("pidfd_getfd", opened(call(SYS_pidfd_getfd, process, 0, 0)), DENIED);
    call(SYS_close, process);
}

static void kill_outside(void) { /* signal 0 only asks */
    attempt("kill", call(SYS_kill, stranger(), 0), ERRORS(EPERM, ESRCH));
}

/* The runtime's own binary, through the processes that it left (CVE-2019-5736), and what it put into the root. */
static void overwrite_runtime(void) {
    attempt("open /proc/1/exe for writing", opens(of_stranger("exe"), O_WRONLY), ERRORS(EPERM, EACCES, ENOENT, EROFS));
    attempt("open /proc/self/exe for writing", opens("/proc/self/exe", O_WRONLY), ERRORS(EPERM, EACCES, EROFS));
    try_open("/.ironbound/guard", O_WRONLY);
}

/* Whatever the runtime left open leads outside (CVE-2024-21626). An agent has the descriptors 0 to 4. */
static void leaked_descriptors(void) {
    for (word i = 5; i < 1024; i++)
        if (call(SYS_fcntl, i, F_GETFD) != -EBADF) {
            judged(NO, "a descriptor above 4 is open");
            return;
        }
    attempt("fcntl F_GETFD of 5 to 1023", -EBADF, ERRORS(EBADF));
}
