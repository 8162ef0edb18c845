/* Mounts: making, changing and leaving the tree of files. Refused by the filter, and by the missing CAP_SYS_ADMIN. */

static void mount_tmpfs(void) {
    if (attempt("mount tmpfs", call(SYS_mount, "none", "/tmp", "tmpfs", 0, 0), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
}

static void mount_bind(void) {
    if (attempt("mount --bind", call(SYS_mount, "/", "/tmp", 0, MS_BIND | MS_REC, 0), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
}

static void mount_proc(void) {
    if (attempt("mount proc", call(SYS_mount, "proc", "/tmp", "proc", 0, 0), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
}

static void mount_cgroup(void) {
    if (attempt("mount cgroup", call(SYS_mount, "none", "/tmp", "cgroup", 0, "memory"), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
    if (attempt("mount cgroup2", call(SYS_mount, "none", "/tmp", "cgroup2", 0, 0), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
}

static void mount_overlay(void) {
    if (attempt("mount overlay", call(SYS_mount, "none", "/tmp", "overlay", MS_RDONLY, "lowerdir=/:/tmp"), DENIED))
        call(SYS_umount2, "/tmp", MNT_DETACH);
}

static void mount_propagation(void) {
    attempt("mount --make-rprivate", call(SYS_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0), DENIED);
}

static void remount_writable(void) {
    if (attempt("mount -o remount,rw /", call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND, 0), DENIED))
        call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0);
}

static void unmount_mask(void) { /* MNT_EXPIRE only marks it the first time */
    attempt("umount /proc", call(SYS_umount2, "/proc", 4), DENIED);
    attempt("umount /tmp", call(SYS_umount2, "/tmp", 4), DENIED);
}

static void pivot_root(void) { attempt("pivot_root", call(SYS_pivot_root, "/tmp", "/tmp"), DENIED); }

static void change_root(void) { attempt("chroot", call(SYS_chroot, "/"), DENIED); }

static void mount_fsopen(void) { attempt("fsopen", opened(call(SYS_fsopen, "tmpfs", 0)), DENIED); }

static void mount_fspick(void) { attempt("fspick", opened(call(SYS_fspick, AT_FDCWD, "/", 0)), DENIED); }

static void mount_open_tree(void) { attempt("open_tree", opened(call(SYS_open_tree, AT_FDCWD, "/", 1)), DENIED); }

static void mount_move(void) {
    attempt("move_mount", call(SYS_move_mount, -1, "", AT_FDCWD, "/tmp", 4), DENIED);
}

static void mount_attributes(void) {
    u64 writable[4] = {0, 1, 0, 0}, read_only[4] = {1, 0, 0, 0};
    if (attempt("mount_setattr", call(SYS_mount_setattr, AT_FDCWD, "/", 0, writable, sizeof writable), DENIED))
        call(SYS_mount_setattr, AT_FDCWD, "/", 0, read_only, sizeof read_only);
}
