"""Puts a hypervisor behind its walls and becomes it: namespaces, an own root, no privilege, Landlock, limits.

Decides in which order a hypervisor's process loses its power; `qemu` decides what it is told. Runs as a program of its
own, between the node and the hypervisor, and is gone once the hypervisor runs:

    python -I -B -m ironbound.node.microvm.wall ORDER

ORDER is JSON: argv, uid, gid, separated, kvm, cores, limits, groups. Descriptors: those of
`core.microvm.DESCRIPTORS`, BINARY_FD, and REPORT_FD, on which one line of JSON tells the pid, or what did not work;
its end without a further line means that the program was started.
Follows unshare(2), clone(2), pivot_root(2), mount(2), landlock(7).

Rule 1: a step that the kernel does not carry out is the end; nothing is skipped, and nothing is started.
Rule 2: the hypervisor is the node's own child (CLONE_PARENT) and dies with it.
Rule 3: it is started from the very descriptor whose bytes were measured.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import FormatError, canonical, parse_json
from ironbound.node.sandbox import lockdown

BINARY_FD: Final = 11
MAX_ORDER: Final = 64 * 1024
REPORT_FD: Final = 12
OLD_ROOT: Final = ".old"
ROOT: Final = "/tmp"
"""Covered by the new root's file system until that is the root, in a mount namespace of our own."""
SYSTEM: Final = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
DEVICES: Final = ("null", "urandom")

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWCGROUP: Final = 0x02000000
_CLONE_NEWUTS: Final = 0x04000000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWPID: Final = 0x20000000
_CLONE_NEWNET: Final = 0x40000000
_CLONE_PARENT: Final = 0x00008000
_SIGCHLD: Final = 17
_SYS_CLONE: Final = 56
_SYS_PIVOT_ROOT: Final = 155
_SYS_LANDLOCK_ADD_RULE: Final = 445
_RULE_PATH_BENEATH: Final = 1
_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18
_MNT_DETACH: Final = 2
_READ_EXECUTE: Final = 1 | 4 | 8  # execute, read a file, read a folder
_READ_WRITE: Final = 2 | 4

# The lock of the interpreter is kept during these calls: a clone has one thread, and it is that one's.
_LIBC: Final = ctypes.PyDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def _failed(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")


def _call(what: str, result: int) -> int:
    if result == -1:
        raise _failed(what)
    return result


def _unshare(flags: int, what: str) -> None:
    _call(what, _LIBC.unshare(ctypes.c_int(flags)))


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = [item.encode() for item in (source, target, kind)]
    _call(f"mount {target}", _LIBC.mount(*words, ctypes.c_ulong(flags), data.encode()))


def enter_namespaces(separated: bool) -> None:
    """New namespaces of every kind; the pid namespace is the next child's. An ordinary user's lie in a user namespace
    that maps only the own ids."""
    uid, gid = os.getuid(), os.getgid()
    flags = _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWCGROUP | _CLONE_NEWPID
    _unshare(flags if separated else flags | _CLONE_NEWUSER, "unshare")
    if not separated:
        for name, text in (("uid_map", f"{uid} {uid} 1"), ("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def clone_for_parent() -> int:
    """As fork, but the child is our parent's."""
    return _call("clone", _LIBC.syscall(_SYS_CLONE, _CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))


def make_devices(devices: Sequence[str], owner: int | None) -> None:
    """/dev in the new root. With an `owner` the nodes are its own, whatever the host lets it open; an ordinary user
    gets the host's."""
    if owner is not None:
        _mount("tmpfs", f"{ROOT}/dev", "tmpfs", _MS_NOSUID | _MS_NOEXEC, "size=16k,nr_inodes=16,mode=0755")
    for name in devices:
        place = f"{ROOT}/dev/{name}"
        if owner is None:
            Path(place).touch()
            _mount(f"/dev/{name}", place, "", _MS_BIND)
        else:
            host = os.stat(f"/dev/{name}")
            os.mknod(place, stat.S_IFMT(host.st_mode) | 0o600, host.st_rdev)
            os.chown(place, owner, -1)
    if owner is not None:
        _mount("none", f"{ROOT}/dev", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NOEXEC)


def make_root(devices: Sequence[str], owner: int | None) -> None:
    """A root with the system's programs to read, these devices, /proc of the own pid namespace, and nothing else."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", ROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64k,nr_inodes=32,mode=0755")
    root = Path(ROOT)
    for name in ("usr", "proc", "dev", OLD_ROOT):
        (root / name).mkdir(mode=0o755)
    _bind("/usr", f"{ROOT}/usr", _MS_NODEV)
    for name in SYSTEM:
        place = Path("/") / name
        if place.is_symlink():
            (root / name).symlink_to(place.readlink())
        elif place.is_dir():
            (root / name).mkdir(mode=0o755)
            _bind(str(place), f"{ROOT}/{name}", _MS_NODEV)
    make_devices(devices, owner)
    _mount("proc", f"{ROOT}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    os.chdir(ROOT)
    _call("pivot_root", _LIBC.syscall(_SYS_PIVOT_ROOT, b".", OLD_ROOT.encode()))
    os.chdir("/")
    _call("umount", _LIBC.umount2(f"/{OLD_ROOT}".encode(), ctypes.c_int(_MNT_DETACH)))
    os.rmdir(f"/{OLD_ROOT}")
    _mount("none", "/", "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _bind(source: str, target: str, flags: int) -> None:
    _mount(source, target, "", _MS_BIND)
    _mount("none", target, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | flags)


def restrict_files(devices: Sequence[str]) -> None:
    """A Landlock domain: the system's programs can be read and executed, the devices read and written; nothing else
    of any file system, and no TCP."""
    abi = lockdown.landlock_abi()
    if abi < 1:
        raise lockdown.LockdownError("expected a kernel with Landlock, got none")
    rules = lockdown.landlock_rules(abi)
    ruleset = lockdown.raw_syscall(444, rules, len(rules), 0)
    places = [(f"/{name}", _READ_EXECUTE) for name in ("usr", *SYSTEM)]
    places += [(f"/dev/{name}", _READ_WRITE | (0x8000 if abi >= 5 else 0)) for name in devices]
    for path, rights in places:
        if not os.path.exists(path):
            continue
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        lockdown.raw_syscall(
            _SYS_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0
        )
        os.close(descriptor)
    lockdown.raw_syscall(446, ruleset, 0)
    os.close(ruleset)


def enclose(order: dict[str, Any]) -> None:
    """Everything that a hypervisor's process loses, in order."""
    devices = [*DEVICES, *(["kvm"] if order["kvm"] else [])]
    make_root(devices, order["uid"] if order["separated"] else None)
    os.umask(0o077)
    if order["cores"]:
        os.sched_setaffinity(0, order["cores"])
    lockdown.set_rlimits({name: (value, value) for name, value in order["limits"].items()})
    if lockdown.may_drop_bounding_set():
        lockdown.drop_bounding_set()
    lockdown.become_user(order["uid"], order["gid"], "user" if order["separated"] else "process")
    lockdown.drop_capabilities()
    lockdown.set_no_new_privs()
    restrict_files(devices)
    lockdown.set_parent_death_signal()
    lockdown.close_from(REPORT_FD + 1)


def _join(groups: Sequence[str]) -> None:
    for group in groups:
        Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _report(value: dict[str, Any]) -> None:
    os.write(REPORT_FD, canonical(value) + b"\n")


def main() -> None:
    """See the module."""
    os.set_inheritable(REPORT_FD, False)
    os.set_inheritable(BINARY_FD, False)
    try:
        order: Any = parse_json(sys.argv[1].encode(), limit=MAX_ORDER)
        _join(order["groups"])
        enter_namespaces(order["separated"])
        child = clone_for_parent()
        if child > 0:
            _report({"pid": child})
            os._exit(0)
        enclose(order)
        os.execve(BINARY_FD, order["argv"], {})
    except (OSError, ValueError, FormatError, lockdown.LockdownError) as error:
        _report({"failed": str(error)[:500]})
        os._exit(1)


if __name__ == "__main__":
    main()
