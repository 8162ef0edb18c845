/* The kernel's own files: procfs, sysfs, cgroups. Opened for writing, never written. */

static void core_pattern(void) { try_open("/proc/sys/kernel/core_pattern", O_WRONLY); }
static void modprobe_path(void) { try_open("/proc/sys/kernel/modprobe", O_WRONLY); }
static void binfmt_misc(void) { try_open("/proc/sys/fs/binfmt_misc/register", O_WRONLY); }
static void uevent_helper(void) { try_open("/sys/kernel/uevent_helper", O_WRONLY); }
static void sysrq_trigger(void) { try_open("/proc/sysrq-trigger", O_WRONLY); }

static void sysctl_write(void) {
    try_open("/proc/sys/kernel/hostname", O_WRONLY);
    try_open("/proc/sys/kernel/panic", O_WRONLY);
    try_open("/proc/sys/vm/overcommit_memory", O_WRONLY);
    try_open("/proc/sys/kernel/randomize_va_space", O_WRONLY);
    try_open("/proc/sys/net/ipv4/ip_forward", O_WRONLY);
}

static void kernel_memory(void) {
    try_open("/proc/kcore", O_RDONLY);
    try_open("/proc/kmem", O_RDONLY);
    try_open("/dev/mem", O_RDWR);
    try_open("/dev/kmem", O_RDWR);
    try_open("/dev/port", O_RDWR);
}

static void kernel_log(void) {
    char part[16];
    attempt("syslog SYSLOG_ACTION_READ_ALL", call(SYS_syslog, 3, part, sizeof part), DENIED);
    try_open("/dev/kmsg", O_RDONLY);
    try_open("/proc/kmsg", O_RDONLY);
}

/* Without CAP_SYSLOG the addresses are shown as zeros, if at all. The first of them is zero on some kernels anyhow. */
static void kernel_addresses(void) {
    static char lines[16384];
    word file = call(SYS_openat, AT_FDCWD, "/proc/kallsyms", O_RDONLY | O_CLOEXEC, 0), size = 0, got;
    if (failed(file)) {
        attempt("open /proc/kallsyms", file, HIDDEN);
        return;
    }
    while ((got = call(SYS_read, file, lines + size, sizeof lines - (u64)size)) > 0) size += got;
    call(SYS_close, file);
    boolean shown = NO, address = YES;
    for (word i = 0; i < size; i++) {
        if (lines[i] == ' ') address = NO;
        if (address && lines[i] != '0') shown = YES;
        if (lines[i] == '\n') address = YES;
    }
    judged(!shown, shown ? "/proc/kallsyms shows addresses" : "/proc/kallsyms: addresses hidden, shown as 0000000000000000");
}

static void sysfs_write(void) {
    try_open("/sys/power/state", O_WRONLY);
    try_open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
    try_open("/sys/module/kernel/parameters/panic", O_WRONLY);
    try_open("/sys/firmware/efi/efivars", O_RDONLY);
    try_open("/sys/kernel/debug", O_RDONLY);
    try_open("/sys/fs/bpf", O_RDONLY);
}

static void cgroup_release_agent(void) {
    try_open("/sys/fs/cgroup/release_agent", O_WRONLY);
    try_open("/sys/fs/cgroup/memory/release_agent", O_WRONLY);
    try_open("/sys/fs/cgroup/rdma/release_agent", O_WRONLY);
}

static void cgroup_limits(void) {
    try_open("/sys/fs/cgroup/memory.max", O_WRONLY);
    try_open("/sys/fs/cgroup/pids.max", O_WRONLY);
    try_open("/sys/fs/cgroup/cgroup.procs", O_WRONLY);
    try_open("/sys/fs/cgroup/memory/memory.limit_in_bytes", O_WRONLY);
    try_open("/sys/fs/cgroup/pids/pids.max", O_WRONLY);
    try_open("/sys/fs/cgroup/devices/devices.allow", O_WRONLY);
}

static void cgroup_create(void) {
    static const char *const places[] = {"/sys/fs/cgroup/ironbound-probe", "/sys/fs/cgroup/memory/ironbound-probe"};
    for (word i = 0; i < COUNT(places); i++)
        if (attempt("mkdir in a cgroup", call(SYS_mkdir, places[i], 0700), HIDDEN)) call(SYS_rmdir, places[i]);
}
