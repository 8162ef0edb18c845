/* Namespaces: making them and entering others. Each is tried in a child, which keeps it to itself. */

#define UNSHARES(name, flag) \
    static word name(void) { return call(SYS_unshare, flag); }
UNSHARES(unshares_mounts, CLONE_NEWNS)
UNSHARES(unshares_cgroup, CLONE_NEWCGROUP)
UNSHARES(unshares_uts, CLONE_NEWUTS)
UNSHARES(unshares_ipc, CLONE_NEWIPC)
UNSHARES(unshares_pid, CLONE_NEWPID)
UNSHARES(unshares_network, CLONE_NEWNET)
UNSHARES(unshares_time, CLONE_NEWTIME)
UNSHARES(unshares_user, CLONE_NEWUSER)

static void unshare_each(void) {
    attempt("unshare mount", in_child(unshares_mounts), DENIED);
    attempt("unshare cgroup", in_child(unshares_cgroup), DENIED);
    attempt("unshare uts", in_child(unshares_uts), DENIED);
    attempt("unshare ipc", in_child(unshares_ipc), DENIED);
    attempt("unshare pid", in_child(unshares_pid), DENIED);
    attempt("unshare network", in_child(unshares_network), DENIED);
    attempt("unshare time", in_child(unshares_time), DENIED);
}

static void unshare_user(void) { attempt("unshare user", in_child(unshares_user), DENIED); }

static word enters(const char *kind) {
    word file = call(SYS_openat, AT_FDCWD, of_stranger(kind), O_RDONLY | O_CLOEXEC, 0);
    if (failed(file)) return file;
    word result = call(SYS_setns, file, 0);
    call(SYS_close, file);
    return result;
}

static word enters_mounts(void) { return enters("ns/mnt"); }
static word enters_network(void) { return enters("ns/net"); }
static word enters_pid(void) { return enters("ns/pid"); }
static word enters_user(void) { return enters("ns/user"); }
static word enters_cgroup(void) { return enters("ns/cgroup"); }

static void enter_namespace(void) {
    attempt("setns mount", in_child(enters_mounts), ERRORS(EPERM, EACCES, ENOENT));
    attempt("setns network", in_child(enters_network), ERRORS(EPERM, EACCES, ENOENT));
    attempt("setns pid", in_child(enters_pid), ERRORS(EPERM, EACCES, ENOENT));
    attempt("setns user", in_child(enters_user), ERRORS(EPERM, EACCES, ENOENT));
    attempt("setns cgroup", in_child(enters_cgroup), ERRORS(EPERM, EACCES, ENOENT));
}

static word clones(word flags) {
    word child = call(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) leave(0);
    if (!failed(child)) call(SYS_wait4, child, 0, 0, 0);
    return child;
}

static void clone_namespaces(void) {
    attempt("clone user", clones(CLONE_NEWUSER), DENIED);
    attempt("clone mount", clones(CLONE_NEWNS), DENIED);
    attempt("clone network", clones(CLONE_NEWNET), DENIED);
    attempt("clone pid", clones(CLONE_NEWPID), DENIED);
    attempt("clone user, mount, network", clones(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET), DENIED);
}

/* No filter can read the structure's flags, so the filter says that there is no such call. */
static void clone3_user(void) {
    u64 arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0, 0, 0, 0};
    word child = call(SYS_clone3, arguments, sizeof arguments);
    if (child == 0) leave(0);
    if (!failed(child)) call(SYS_wait4, child, 0, 0, 0);
    attempt("clone3 user", child, ERRORS(EPERM, ENOSYS));
}
