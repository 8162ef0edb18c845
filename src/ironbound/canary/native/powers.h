/* Capabilities, ids and the flags that guard them. Refused by the filter, and by empty sets and no_new_privs. */

typedef struct { u32 effective, permitted, inheritable; } capability_sets;

static word raise(u32 effective, u32 permitted, u32 inheritable) {
    struct { u32 version; int pid; } header = {CAP_VERSION_3, 0};
    capability_sets held[2] = {{0, 0, 0}, {0, 0, 0}};
    word result = call(SYS_capget, &header, held);
    if (result) return result;
    held[0].effective |= effective;
    held[0].permitted |= permitted;
    held[0].inheritable |= inheritable;
    return call(SYS_capset, &header, held);
}

static void capability_raise(void) {
    attempt("capset CAP_SYS_ADMIN", raise(1 << CAP_SYS_ADMIN, 1 << CAP_SYS_ADMIN, 0), DENIED);
    attempt("capset CAP_NET_RAW", raise(1 << CAP_NET_RAW, 1 << CAP_NET_RAW, 0), DENIED);
}

static word inherits(void) { return raise(0, 0, 1 << CAP_CHOWN); }
static void capability_inherit(void) { attempt("capset inheritable", in_child(inherits), DENIED); }

/* EINVAL: gVisor's kernel has neither ambient sets, nor securebits, nor PR_SET_MM. Linux has all three. */
static word raises_ambient(void) {
    raise(0, 0, 1 << CAP_CHOWN);
    return call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0);
}
static void capability_ambient(void) {
    attempt("prctl PR_CAP_AMBIENT_RAISE", in_child(raises_ambient), ERRORS(EPERM, EINVAL));
}

static word drops_bounding(void) { return call(SYS_prctl, PR_CAPBSET_DROP, CAP_CHOWN); }
static void capability_bounding(void) { /* whoever may change the bounding set holds CAP_SETPCAP */
    attempt("prctl PR_CAPBSET_DROP", in_child(drops_bounding), DENIED);
}

static word sets_securebits(void) { return call(SYS_prctl, PR_SET_SECUREBITS, 0x15); }
static void securebits(void) { attempt("prctl PR_SET_SECUREBITS", in_child(sets_securebits), ERRORS(EPERM, EINVAL)); }

static void memory_map(void) { attempt("prctl PR_SET_MM", call(SYS_prctl, PR_SET_MM, 8, 0, 0, 0), ERRORS(EPERM)); }

static void new_privileges(void) {
    word result = call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), now = call(SYS_prctl, PR_GET_NO_NEW_PRIVS);
    attempt("prctl PR_SET_NO_NEW_PRIVS 0", now == 0 ? 0 : result, ERRORS(EPERM, EINVAL));
}

/* EINVAL: the id does not exist in the user namespace. */
#define NO_SUCH_ID ERRORS(EPERM, EINVAL)

static void become_root(void) {
    attempt("setuid 0", call(SYS_setuid, 0), NO_SUCH_ID);
    attempt("setresuid 0", call(SYS_setresuid, -1, 0, -1), NO_SUCH_ID);
}

static void become_root_group(void) {
    attempt("setgid 0", call(SYS_setgid, 0), NO_SUCH_ID);
    attempt("setresgid 0", call(SYS_setresgid, -1, 0, -1), NO_SUCH_ID);
}

static void other_groups(void) {
    u32 groups[1] = {0};
    attempt("setgroups", call(SYS_setgroups, 1, groups), NO_SUCH_ID);
}

static void file_system_root(void) { /* setfsuid has no error: the second call tells what the first one did */
    word first = call(SYS_setfsuid, 0), second = call(SYS_setfsuid, -1);
    if (failed(first)) attempt("setfsuid 0", first, DENIED);
    else judged(second != 0, second != 0 ? "setfsuid 0: EPERM: Operation not permitted" : "setfsuid 0: it was allowed");
}

static const char own_file[] = "/tmp/ironbound-probe";

/* 0, or why there can be no file of its own to try it on. */
static word make_own_file(void) {
    word file = call(SYS_openat, AT_FDCWD, own_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    return failed(file) ? file : call(SYS_close, file);
}

static void setuid_file(void) {
    word made = make_own_file();
    if (made) {
        without_file(made);
        return;
    }
    attempt("chown root", call(SYS_chown, own_file, 0, -1), NO_SUCH_ID);
    call(SYS_unlink, own_file);
}

static void file_capability(void) { /* struct vfs_cap_data, revision 2: CAP_CHOWN, effective */
    u32 value[5] = {0x02000001, 1, 0, 0, 0};
    word made = make_own_file();
    if (made) {
        without_file(made);
        return;
    }
    attempt("setxattr security.capability",
            call(SYS_setxattr, own_file, "security.capability", value, sizeof value, 0), ERRORS(EPERM, EOPNOTSUPP));
    call(SYS_unlink, own_file);
}

static word drops_randomisation(void) { return call(SYS_personality, 0x0040000); }
static word reads_imply_exec(void) { return call(SYS_personality, 0x0400000); }
static void change_personality(void) {
    attempt("personality ADDR_NO_RANDOMIZE", in_child(drops_randomisation), DENIED);
    attempt("personality READ_IMPLIES_EXEC", in_child(reads_imply_exec), DENIED);
}

/* Whether a filter is there at all; one that refuses the question is. */
static void filter_off(void) {
    word mode = call(SYS_prctl, PR_GET_SECCOMP);
    word result = call(SYS_prctl, 22, 0, 0, 0, 0);
    attempt("prctl PR_SET_SECCOMP 0", mode == 0 ? 0 : result, ERRORS(EPERM, EINVAL));
}

/* A second domain cannot be wider than the first; the filter does not even let one be made. */
static void landlock_widen(void) {
    struct { u64 files; } rules = {1};
    attempt("landlock_create_ruleset", opened(call(SYS_landlock_create_ruleset, &rules, sizeof rules, 0)), DENIED);
    attempt("landlock_restrict_self", call(SYS_landlock_restrict_self, -1, 0), DENIED);
}
