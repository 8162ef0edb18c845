/* The walls that the guard puts up or finds standing, one function each. A step that fails is a refusal.
 *
 * Follows capabilities(7), prctl(2), landlock(7), seccomp(2). The order is guard.c's.
 */
#ifndef WALLS_H
#define WALLS_H

enum { LAST_CAPABILITY = 63, SIGNALS = 64, RULESET_VERSION = 1, RULE_PATH_BENEATH = 1, FILTER_MODE = 1, TSYNC = 1 };

/* Rights of struct landlock_ruleset_attr. */
enum {
    L_EXECUTE = 1, L_WRITE_FILE = 2, L_READ_FILE = 4, L_READ_DIR = 8, L_REMOVE_DIR = 16, L_REMOVE_FILE = 32,
    L_MAKE_CHAR = 64, L_MAKE_DIR = 128, L_MAKE_REG = 256, L_MAKE_SOCK = 512, L_MAKE_FIFO = 1024, L_MAKE_BLOCK = 2048,
    L_MAKE_SYM = 4096, L_REFER = 8192, L_TRUNCATE = 16384, L_IOCTL_DEV = 32768,
    L_EVERYWHERE = L_EXECUTE | L_READ_FILE | L_READ_DIR,
    L_IN_DEV = L_READ_FILE | L_READ_DIR | L_WRITE_FILE | L_TRUNCATE,
    L_IN_TMP = L_READ_FILE | L_READ_DIR | L_WRITE_FILE | L_REMOVE_DIR | L_REMOVE_FILE | L_MAKE_DIR | L_MAKE_REG |
               L_MAKE_SOCK | L_MAKE_FIFO | L_MAKE_SYM | L_REFER | L_TRUNCATE,
    L_TCP = 3, L_SCOPES = 3,
};

/* Soft and hard alike, and read back. What has its value already is not set again: gVisor's kernel sets only some. */
static void set_limits(const plan *from) {
    for (word number = 0; number < RLIMITS; number++) {
        if (!from->limited[number]) continue;
        u64 wanted[2] = {from->limits[number], from->limits[number]}, found[2] = {0, 0};
        word result = call(SYS_prlimit64, 0, number, 0, found);
        if (!result && (found[0] != wanted[0] || found[1] != wanted[1])) {
            result = call(SYS_prlimit64, 0, number, wanted, 0);
            if (!result) result = call(SYS_prlimit64, 0, number, 0, found);
        }
        text reason = reason_begin("rlimit ");
        put_number(&reason, number);
        if (result) {
            put(&reason, ": ");
            put_error(&reason, result);
            refuse_for("lockdown", &reason);
        }
        if (found[0] != wanted[0] || found[1] != wanted[1]) {
            put(&reason, ": the kernel gave another value than it was asked for");
            refuse_for("lockdown", &reason);
        }
    }
}

/* All five sets. What the bounding set still holds is dropped; where that is refused, no_new_privs makes it void.
 * gVisor's kernel has no ambient set (EINVAL); Linux has had one since 4.3. */
static void expect_no_capabilities(boolean linux) {
    struct { u32 version; int pid; } header = {CAP_VERSION_3, 0};
    struct { u32 effective, permitted, inheritable; } held[2] = {{0, 0, 0}, {0, 0, 0}};
    boolean ambient = YES;
    word result = call(SYS_capget, &header, held);
    if (result) refuse_error("lockdown", "capget", result);
    for (int i = 0; i < 2; i++)
        if (held[i].effective | held[i].permitted | held[i].inheritable)
            refuse("lockdown", "expected empty capability sets, got some in the effective, permitted or inheritable set");
    for (word capability = 0; capability <= LAST_CAPABILITY; capability++) {
        word present = call(SYS_prctl, PR_CAPBSET_READ, capability);
        if (present == -EINVAL) break; /* the kernel's last capability was the one before */
        if (failed(present)) refuse_error("lockdown", "the bounding set", present);
        if (present) result = call(SYS_prctl, PR_CAPBSET_DROP, capability);
        if (present && result && result != -EPERM) refuse_error("lockdown", "the bounding set", result);
        if (!ambient) continue;
        word raised = call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability);
        if (!linux && capability == 0 && raised == -EINVAL) {
            ambient = NO;
            continue;
        }
        if (failed(raised)) refuse_error("lockdown", "the ambient set", raised);
        if (raised) refuse_number("lockdown", "expected an empty ambient set, got capability ", capability);
    }
}

static void set_no_new_privs(void) {
    word result = call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
    if (!result) result = call(SYS_prctl, PR_GET_NO_NEW_PRIVS);
    if (result != 1) refuse_error("lockdown", "no_new_privs", result);
}

/* An ignored or blocked signal would outlive the exec; the agent begins like any other program. */
static void reset_signals(void) {
    struct { word handler; u64 flags, restorer, mask; } standard = {0, 0, 0, 0};
    u64 none = 0;
    for (word number = 1; number <= SIGNALS; number++) {
        if (number == SIGKILL || number == 19) continue; /* SIGSTOP: neither can be changed */
        word result = call(SYS_rt_sigaction, number, &standard, 0, 8);
        if (result) refuse_error("lockdown", "rt_sigaction", result);
    }
    word result = call(SYS_rt_sigprocmask, 2, &none, 0, 8);
    if (result) refuse_error("lockdown", "rt_sigprocmask", result);
}

static void landlock_allow(word ruleset, const char *path, u64 rights) {
    struct __attribute__((packed)) { u64 allowed; int parent; } rule = {rights, 0};
    word folder = call(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW, 0);
    if (failed(folder)) refuse_error("lockdown", path, folder);
    rule.parent = (int)folder;
    word result = call(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0);
    if (result) refuse_error("lockdown", "landlock_add_rule", result);
    result = call(SYS_close, folder);
    if (result) refuse_error("lockdown", "close", result);
}

/* The newest ABI of the kernel with every right that it and we know. Returns the ABI, 0 where the plan says absent. */
static word restrict_by_landlock(boolean required) {
    struct { u64 files, tcp, scopes; } rules = {0x1FFF, L_TCP, L_SCOPES};
    word abi = call(SYS_landlock_create_ruleset, 0, 0, RULESET_VERSION), result;
    if (!required) {
        if (abi != -ENOSYS && abi != -EOPNOTSUPP)
            refuse("lockdown", "the plan says that this kernel has no Landlock, but it has");
        return 0;
    }
    if (abi < 1) refuse_error("lockdown", "expected a kernel with Landlock", abi);
    if (abi >= 2) rules.files |= L_REFER;
    if (abi >= 3) rules.files |= L_TRUNCATE;
    if (abi >= 5) rules.files |= L_IOCTL_DEV;
    word ruleset = call(SYS_landlock_create_ruleset, &rules, abi >= 6 ? 24 : abi >= 4 ? 16 : 8, 0);
    if (failed(ruleset)) refuse_error("lockdown", "landlock_create_ruleset", ruleset);
    landlock_allow(ruleset, "/", L_EVERYWHERE & rules.files);
    landlock_allow(ruleset, "/tmp", L_IN_TMP & rules.files);
    landlock_allow(ruleset, "/dev", L_IN_DEV & rules.files);
    result = call(SYS_landlock_restrict_self, ruleset, 0);
    if (result) refuse_error("lockdown", "landlock_restrict_self", result);
    result = call(SYS_close, ruleset);
    if (result) refuse_error("lockdown", "close", result);
    return abi;
}

static void install_filter(const plan *from) {
    struct { u16 length; u8 *filter; } program = {from->instructions, from->filter};
    word result = call(SYS_seccomp, FILTER_MODE, TSYNC, &program);
    if (result) refuse_error("lockdown", "the system call filter", result);
}

#endif
