/* System calls that no agent needs. Refused by the filter, most of them also by a missing capability. */

static void keyring(void) {
    attempt("keyctl", call(SYS_keyctl, 0, -3, 0), DENIED);
    attempt("add_key", call(SYS_add_key, "user", "ironbound-probe", "x", 1, -1), DENIED);
    attempt("request_key", call(SYS_request_key, "user", "ironbound-probe", 0, -1), DENIED);
}

static void bpf(void) {
    u32 map[32] = {2, 4, 4, 1}; /* an array of one value */
    u32 program[32] = {1};
    attempt("bpf BPF_MAP_CREATE", opened(call(SYS_bpf, 0, map, sizeof map)), DENIED);
    attempt("bpf BPF_PROG_LOAD", opened(call(SYS_bpf, 5, program, sizeof program)), DENIED);
}

static void perf_event(void) {
    u32 counter[32] = {1, 128, 0}; /* software, the CPU's clock */
    attempt("perf_event_open", opened(call(SYS_perf_event_open, counter, 0, -1, -1, 0)), ERRORS(EPERM, EACCES));
}

static void user_faults(void) {
    attempt("userfaultfd", opened(call(SYS_userfaultfd, 0)), DENIED);
    attempt("userfaultfd UFFD_USER_MODE_ONLY", opened(call(SYS_userfaultfd, 1)), DENIED);
}

static void io_uring(void) {
    u8 parameters[120] = {0};
    attempt("io_uring_setup", opened(call(SYS_io_uring_setup, 1, parameters)), DENIED);
}

static word calls_x32(void) { return call(0x40000000 | SYS_getpid); }
static void x32_call(void) { attempt("x32 getpid", in_child(calls_x32), ERRORS(ENDED_BY(SIGSYS), EPERM)); }

static word calls_i386(void) {
    word result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "r8", "r9", "r10", "r11", "memory"); /* getpid */
    return (int)result;
}
/* SIGSEGV: a kernel without the 32-bit entry, as gVisor's. */
static void i386_call(void) {
    attempt("int 0x80 getpid", in_child(calls_i386), ERRORS(ENDED_BY(SIGSYS), ENDED_BY(SIGSEGV), EPERM));
}

static void local_descriptor_table(void) {
    attempt("modify_ldt", call(SYS_modify_ldt, 1, 1, 16), ERRORS(EPERM));
}

static void port_access(void) {
    attempt("iopl 3", call(SYS_iopl, 3), DENIED);
    attempt("ioperm", call(SYS_ioperm, 0x80, 1, 1), DENIED);
}

static void load_module(void) {
    attempt("init_module", call(SYS_init_module, "", 0, ""), DENIED);
    attempt("finit_module", call(SYS_finit_module, 3, "", 0), DENIED);
    attempt("delete_module", call(SYS_delete_module, "ironbound_no_such_module", O_NONBLOCK), DENIED);
}

static void load_kernel(void) {
    attempt("kexec_load", call(SYS_kexec_load, 0, 0, 0, 0xFFFF), DENIED);
    attempt("kexec_file_load", call(SYS_kexec_file_load, -1, -1, 0, 0, 0xFFFF), DENIED);
}

static void reboot_machine(void) { /* without its magic numbers it does nothing */
    attempt("reboot", call(SYS_reboot, 0, 0, 0, 0), DENIED);
}

static void swap_space(void) {
    attempt("swapon", call(SYS_swapon, "/ironbound-no-such-file", 0), DENIED);
    attempt("swapoff", call(SYS_swapoff, "/ironbound-no-such-file"), DENIED);
}

static void accounting(void) { attempt("acct", call(SYS_acct, "/ironbound-no-such-file"), DENIED); }

static void quota(void) { attempt("quotactl", call(SYS_quotactl, 0x80000200, "/dev/null", 0, 0), DENIED); }

static void change_clock(void) { /* values that are refused only after the right to set the clock was checked */
    struct { int west, dst; } zone = {1 << 20, 0};
    word early[2] = {0, 1}, adjustment[26] = {0};
    adjustment[0] = 0x4000; /* ADJ_TICK, of 0 */
    attempt("settimeofday", call(SYS_settimeofday, 0, &zone), DENIED);
    attempt("clock_settime", call(SYS_clock_settime, 0, early), DENIED);
    attempt("adjtimex", call(SYS_adjtimex, adjustment), DENIED);
    attempt("clock_adjtime", call(SYS_clock_adjtime, 0, adjustment), DENIED);
}

static void change_hostname(void) { /* to what it is already */
    char names[6][65];
    if (call(SYS_uname, names)) {
        never_reached("uname");
        return;
    }
    attempt("sethostname", call(SYS_sethostname, names[1], length(names[1])), DENIED);
    attempt("setdomainname", call(SYS_setdomainname, names[5], length(names[5])), DENIED);
}

static void open_by_handle(void) {
    struct { u32 size; int type; u8 bytes[128]; } handle = {128, 0, {0}};
    int mount = 0;
    call(SYS_name_to_handle_at, AT_FDCWD, "/", &handle, &mount, 0);
    attempt("open_by_handle_at", opened(call(SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY)), DENIED);
}

static void watch_files(void) { attempt("fanotify_init", opened(call(SYS_fanotify_init, 8, 0)), DENIED); }

static void raise_priority(void) {
    int scheduling[1] = {1};
    attempt("setpriority -20", call(SYS_setpriority, 0, 0, -20), ERRORS(EPERM, EACCES));
    attempt("sched_setscheduler SCHED_FIFO", call(SYS_sched_setscheduler, 0, 1, scheduling), DENIED);
    attempt("ioprio_set realtime", call(SYS_ioprio_set, 1, 0, 1 << 13), DENIED);
}

static void null_page(void) { /* where a kernel's null pointer would lead; ENOMEM: gVisor's lowest address is higher */
    word page = call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | 0x10, -1, 0);
    if (attempt("mmap at 0", page, ERRORS(EPERM, EACCES, ENOMEM))) call(SYS_munmap, 0, 4096);
}

static void writable_code(void) {
    word page = call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (attempt("mmap writable and executable", page, DENIED)) call(SYS_munmap, page, 4096);
    page = call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (failed(page)) {
        never_reached("no page of its own");
        return;
    }
    attempt("mprotect writable and executable",
            call(SYS_mprotect, page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC), DENIED);
    call(SYS_munmap, page, 4096);
}

/* A program that is in no file: a copy of this one, which ends at once for want of an argument. */
static word runs_from_memory(void) {
    char *const arguments[] = {"probe", 0};
    char *const variables[] = {0};
    static char part[4096];
    word source = call(SYS_openat, AT_FDCWD, "/probe", O_RDONLY | O_CLOEXEC, 0), got;
    word memory = call(SYS_memfd_create, "probe", 1);
    if (failed(memory)) return memory;
    if (failed(source)) return source;
    while ((got = call(SYS_read, source, part, sizeof part)) > 0)
        if (call(SYS_write, memory, part, got) != got) return -EIO;
    return call(SYS_execveat, memory, "", arguments, variables, 0x1000);
}
static void run_from_memory(void) { attempt("execveat of a memory file", in_child(runs_from_memory), ERRORS(EPERM, EACCES)); }

static void shared_memory(void) {
    word segment = call(SYS_shmget, 0x49524F4E, 4096, 01600);
    if (attempt("shmget", segment, DENIED)) call(31, segment, 0, 0);
    attempt("mq_open", opened(call(SYS_mq_open, "ironbound-probe", O_RDWR | O_CREAT, 0600, 0)), DENIED);
}
