/* What the agent finds in a microVM: its file systems and devices, and the three memory files. */
#ifndef PLACE_H
#define PLACE_H

#define FOLDER "/.ironbound-vm"

enum {
    MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, F_ADD_SEALS = 1033, MFD_ALLOW_SEALING = 2, EVERY_SEAL = 0x1F,
    SYS_dup2 = 33, S_IFDIR_ = 0x4000, AT_REMOVEDIR = 0x200,
};

static void mount_on(const char *kind, const char *path, u64 flags, const char *options) {
    word result = call(SYS_mount, kind, path, kind, flags, options);
    if (result) refuse_error("lockdown", path, result);
}

static void mount_kernels_own(void) {
    mount_on("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, 0);
    mount_on("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible");
}

/* The file's bytes as a memory file with every seal, as this descriptor. */
static void seal(const char *path, int descriptor) {
    static u8 part[65536];
    word file = call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (failed(file)) refuse_error("lockdown", path, file);
    word memory = call(SYS_memfd_create, path + sizeof FOLDER, MFD_ALLOW_SEALING), got;
    if (failed(memory)) refuse_error("lockdown", "memfd_create", memory);
    while ((got = call(SYS_read, file, part, sizeof part)) > 0)
        if (!write_all((int)memory, (char *)part, got)) refuse("lockdown", "no memory for a memory file");
    if (got) refuse_error("lockdown", path, got);
    word result = call(SYS_fcntl, memory, F_ADD_SEALS, EVERY_SEAL);
    if (result) refuse_error("lockdown", "the seals", result);
    call(SYS_close, file);
    if (memory == descriptor) return;
    result = call(SYS_dup2, memory, descriptor);
    if (result != descriptor) refuse_error("lockdown", "dup2", result);
    call(SYS_close, memory);
}

static void device(const char *path, u32 major, u32 minor) {
    word result = call(SYS_mknod, path, S_IFCHR | 0666, major << 8 | minor);
    if (!result) result = call(SYS_chmod, path, 0666);
    if (result) refuse_error("lockdown", path, result);
}

static void make_devices(void) {
    static const struct { const char *path, *target; } links[] = {
        {"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
        {"/dev/stderr", "/proc/self/fd/2"},
    };
    word result = call(SYS_umount2, "/dev", MNT_DETACH);
    if (result) refuse_error("lockdown", "umount /dev", result);
    mount_on("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "size=64k,nr_inodes=32,mode=0755");
    device("/dev/null", 1, 3);
    device("/dev/zero", 1, 5);
    device("/dev/full", 1, 7);
    device("/dev/random", 1, 8);
    device("/dev/urandom", 1, 9);
    for (word i = 0; i < COUNT(links); i++) {
        result = call(SYS_symlink, links[i].target, links[i].path);
        if (result) refuse_error("lockdown", links[i].path, result);
    }
    mount_on("tmpfs", "/dev", MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, 0);
}

static void make_scratch(u64 uid, u64 gid, u64 bytes, u64 files) {
    char room[160];
    text options = {room, 0, sizeof room - 1, NO};
    put(&options, "mode=0700,size=");
    put_number(&options, (word)bytes);
    put(&options, ",nr_inodes=");
    put_number(&options, (word)files + 1); /* the folder itself is one */
    put(&options, ",uid=");
    put_number(&options, (word)uid);
    put(&options, ",gid=");
    put_number(&options, (word)gid);
    options.data[options.size] = 0;
    mount_on("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, room);
}

/* Our own files are no part of the image; the agent does not find them. */
static void remove_own_files(void) {
    static const char *const names[] = {"init", "order", "config", "module", "plan"};
    char path[] = FOLDER "/module-1";
    word folder = call(SYS_openat, AT_FDCWD, FOLDER, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    for (word i = 0; i < COUNT(names); i++) call(SYS_unlinkat, folder, names[i], 0);
    for (; path[sizeof path - 2] <= '9'; path[sizeof path - 2]++) call(SYS_unlink, path);
    call(SYS_close, folder);
    word result = call(SYS_rmdir, FOLDER);
    if (result) refuse_error("lockdown", FOLDER, result);
}

/* The kernel brings a folder /root of its own, closed to others. An image's folders have other bits. */
static void remove_kernels_own(void) {
    struct { u64 device, inode, links; u32 mode; u8 rest[116]; } status;
    if (!call(SYS_stat, "/root", &status) && (status.mode & 07777) == 0700) call(SYS_rmdir, "/root");
}

static void make_place(u64 uid, u64 gid, u64 bytes, u64 files) {
    make_devices();
    make_scratch(uid, gid, bytes, files);
    remove_own_files();
    remove_kernels_own();
    word result = call(SYS_mount, 0, "/", 0, MS_REMOUNT | MS_BIND | MS_RDONLY, 0); /* the mount: this program is in use */
    if (result) refuse_error("lockdown", "a read-only root", result);
    result = call(SYS_sethostname, "ironbound", 9);
    if (result) refuse_error("lockdown", "sethostname", result);
}

#endif
