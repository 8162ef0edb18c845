/* An agent that does what its argument says; the tests compile it. It speaks on descriptor 1, and on 2 at its end. */
#include "kernel.h"

static char room[65536];

static void say(const char *words) { write_all(1, words, length(words)); }

static void show_file(const char *path) {
    word file = call(SYS_openat, AT_FDCWD, path, O_RDONLY, 0), got;
    while ((got = call(SYS_read, file, room, sizeof room)) > 0) write_all(1, room, got);
}

static void show_folder(const char *path) {
    word folder = call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0), got;
    say(path);
    say(":");
    while ((got = call(SYS_getdents, folder, room, sizeof room)) > 0)
        for (word at = 0; at < got; at += *(u16 *)(room + at + 16)) {
            say(" ");
            say(room + at + 18);
        }
    say("\n");
}

static void look(void) {
    show_folder("/");
    show_folder("/.ironbound");
    show_folder("/dev");
    show_file("/proc/net/dev");
    show_file("/proc/self/status");
    show_file("/proc/mounts");
    say("end\n");
}

static void echo(void) {
    word got;
    while ((got = call(SYS_read, 0, room, sizeof room)) > 0) {
        if (got >= 5 && memcmp(room, "quit\n", 5) == 0) return;
        write_all(1, room, got);
    }
}

/* More memory than there is, page by page. */
static void eat(void) {
    for (;;) {
        u8 *part = (u8 *)call(SYS_mmap, 0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (failed((word)part)) leave(3);
        for (word at = 0; at < 1 << 20; at += 4096) part[at] = 1;
    }
}

/* As many processes as there can be, and as much scratch. */
static void fill(void) {
    text line = {room, 0, 200, NO};
    word children = 0, bytes = 0, files = 0, child;
    u64 forever[2] = {1000, 0};
    while (!failed(child = call(SYS_fork)) && children < 1000) {
        if (!child) {
            call(SYS_nanosleep, forever, 0);
            leave(0);
        }
        children++;
    }
    static char block[4096], path[] = "/tmp/f000", *data[] = {"/tmp/one", "/tmp/two", "/tmp/three"};
    for (int i = 0; i < 3; i++) { /* no file reaches the limit of one file */
        word file = call(SYS_openat, AT_FDCWD, data[i], O_WRONLY | O_CREAT, 0600), got = 0;
        for (word size = 0; size < 700000; size += got, bytes += got)
            if ((got = call(SYS_write, file, block, sizeof block)) <= 0) break;
    }
    for (; files < 1000; files++) {
        path[6] = (char)('0' + files / 100);
        path[7] = (char)('0' + files / 10 % 10);
        path[8] = (char)('0' + files % 10);
        if (failed(call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0600))) break;
    }
    put_number(&line, children);
    put(&line, " ");
    put_number(&line, bytes);
    put(&line, " ");
    put_number(&line, files);
    put(&line, "\n");
    write_all(1, line.data, line.size);
}

int program(long argc, char **argv, char **envp) {
    (void)envp;
    const char *what = argc > 1 ? argv[1] : "";
    if (same(what, "look")) look();
    if (same(what, "eat")) eat();
    if (same(what, "fill")) fill();
    if (same(what, "spin"))
        for (;;) call(SYS_getpid);
    echo();
    write_all(2, "that was all\n", 13);
    return same(what, "fail") ? 7 : 0;
}
