/* Files beyond the scratch area: the root is read-only, and Landlock closes everything but /tmp and /dev. */

static void create_in(const char *path) {
    if (attempt(path, opens(path, O_WRONLY | O_CREAT | O_EXCL), HIDDEN)) call(SYS_unlink, path);
}

static void write_outside(void) {
    create_in("/ironbound-probe");
    create_in("/.ironbound/ironbound-probe");
    create_in("/dev/ironbound-probe");
    create_in("/proc/ironbound-probe");
    create_in("/etc/ironbound-probe");
    create_in("/tmp/../ironbound-probe");
}

static void follow_symlink(void) {
    static const char link[] = "/tmp/ironbound-link";
    word made = call(SYS_symlink, "../../../../../../ironbound-probe", link);
    if (failed(made) && made != -EEXIST) {
        without_file(made);
        return;
    }
    if (attempt("open through a link out of /tmp", opens(link, O_WRONLY | O_CREAT), HIDDEN))
        call(SYS_unlink, "/ironbound-probe");
    call(SYS_unlink, link);
}

static void replace_guard(void) {
    word moved = call(SYS_rename, "/.ironbound/guard", "/.ironbound/guard.old");
    if (attempt("rename /.ironbound/guard", moved, HIDDEN)) call(SYS_rename, "/.ironbound/guard.old", "/.ironbound/guard");
    if (attempt("rename /.ironbound", call(SYS_rename, "/.ironbound", "/.ironbound.old"), HIDDEN))
        call(SYS_rename, "/.ironbound.old", "/.ironbound");
}

static void change_mode(void) {
    if (attempt("chmod /probe 04755", call(SYS_chmod, "/probe", 04755), ERRORS(EPERM, EACCES, EROFS)))
        call(SYS_chmod, "/probe", 0555);
}

/* What was approved is not writable, in the agent's hands either. */
static void sealed_files(void) {
    attempt("write the configuration", call(SYS_pwrite64, 3, "x", 1, 0), ERRORS(EPERM, EBADF, EACCES));
    attempt("write the module", call(SYS_pwrite64, 4, "x", 1, 0), ERRORS(EPERM, EBADF, EACCES));
    attempt("truncate the configuration", call(SYS_ftruncate, 3, 0), ERRORS(EPERM, EINVAL, EBADF));
    attempt("truncate the module", call(SYS_ftruncate, 4, 0), ERRORS(EPERM, EINVAL, EBADF));
}
