/* The hostile native agents: one static program that makes one attempt, or a few of one kind, to get out of its sandbox.
 *
 * Start it with a probe's name as argument and IRONBOUND_NONCE in its environment. It really tries the forbidden thing,
 * and reports the kernel's own words on descriptor 2. ../probes.json says what each must end in; the themes are those
 * of docs/threat-model.md and of the published taxonomies of container escapes (MITRE ATT&CK T1611 and its kin).
 */
#include "kernel.h"

#include "report.h"

#include "mounts.h"

#include "powers.h"

#include "kernel_files.h"

#include "devices.h"

#include "namespaces.h"

#include "processes.h"

#include "calls.h"

#include "network.h"

#include "files.h"

#include "resources.h"

#include "channel.h"

#include "shares.h"

static const struct { const char *name; void (*run)(void); } probes[] = {
    {"mount-tmpfs", mount_tmpfs}, {"mount-bind", mount_bind}, {"mount-proc", mount_proc},
    {"mount-cgroup", mount_cgroup}, {"mount-overlay", mount_overlay}, {"mount-propagation", mount_propagation},
    {"mount-remount", remount_writable}, {"mount-unmask", unmount_mask}, {"mount-pivot-root", pivot_root},
    {"mount-chroot", change_root}, {"mount-fsopen", mount_fsopen}, {"mount-fspick", mount_fspick},
    {"mount-open-tree", mount_open_tree}, {"mount-move", mount_move}, {"mount-setattr", mount_attributes},

    {"capability-raise", capability_raise}, {"capability-inherit", capability_inherit},
    {"capability-ambient", capability_ambient}, {"capability-bounding", capability_bounding},
    {"capability-securebits", securebits}, {"capability-file", file_capability},
    {"prctl-set-mm", memory_map}, {"no-new-privs-off", new_privileges}, {"setuid-root", become_root},
    {"setgid-root", become_root_group}, {"setgroups", other_groups}, {"setfsuid-root", file_system_root},
    {"setuid-file", setuid_file}, {"personality", change_personality}, {"seccomp-off", filter_off},
    {"landlock-widen", landlock_widen},

    {"core-pattern", core_pattern}, {"modprobe-path", modprobe_path}, {"binfmt-misc", binfmt_misc},
    {"uevent-helper", uevent_helper}, {"sysrq-trigger", sysrq_trigger}, {"sysctl-write", sysctl_write},
    {"kernel-memory", kernel_memory}, {"kernel-log", kernel_log}, {"kernel-addresses", kernel_addresses},
    {"sysfs-write", sysfs_write}, {"cgroup-release-agent", cgroup_release_agent}, {"cgroup-limits", cgroup_limits},
    {"cgroup-create", cgroup_create},

    {"device-char", make_character_device}, {"device-block", make_block_device}, {"device-raw-disk", raw_disk},
    {"device-host", host_devices}, {"device-tiocsti", terminal_push},

    {"namespace-unshare", unshare_each}, {"namespace-user", unshare_user}, {"namespace-setns", enter_namespace},
    {"namespace-clone", clone_namespaces}, {"namespace-clone3", clone3_user},

    {"process-ptrace-parent", trace_parent}, {"process-ptrace-sibling", trace_sibling},
    {"process-read-memory", read_other_memory}, {"process-write-memory", write_other_memory},
    {"process-own-memory", write_own_memory}, {"process-root", other_root}, {"process-environment", other_environment},
    {"process-descriptor", take_descriptor}, {"process-kill", kill_outside}, {"runtime-overwrite", overwrite_runtime},
    {"descriptor-leak", leaked_descriptors},

    {"call-keyring", keyring}, {"call-bpf", bpf}, {"call-perf-event", perf_event}, {"call-userfaultfd", user_faults},
    {"call-io-uring", io_uring}, {"call-x32", x32_call}, {"call-i386", i386_call},
    {"call-modify-ldt", local_descriptor_table}, {"call-iopl", port_access}, {"call-init-module", load_module},
    {"call-kexec", load_kernel}, {"call-reboot", reboot_machine}, {"call-swapon", swap_space},
    {"call-acct", accounting}, {"call-quotactl", quota}, {"call-clock", change_clock},
    {"call-hostname", change_hostname}, {"call-open-by-handle", open_by_handle}, {"call-fanotify", watch_files},
    {"call-priority", raise_priority}, {"call-null-page", null_page},
    {"call-writable-code", writable_code}, {"call-memory-program", run_from_memory},
    {"call-shared-memory", shared_memory},

    {"network-metadata", metadata_address}, {"network-loopback", loopback}, {"network-tcp", outside_tcp},
    {"network-listen", listen_tcp}, {"network-udp", outside_udp}, {"network-raw", raw_socket},
    {"network-packet", packet_socket}, {"network-netlink", netlink_socket}, {"network-vsock", vsock_socket},
    {"network-crypto", crypto_socket}, {"network-abstract", abstract_socket}, {"host-socket", host_socket},
    {"ledger-socket", ledger_socket},

    {"file-outside-tmp", write_outside}, {"file-symlink", follow_symlink}, {"file-replace-guard", replace_guard},
    {"file-chmod", change_mode}, {"file-sealed", sealed_files},

    {"limit-processes", fork_bomb}, {"limit-memory", memory_bomb}, {"limit-descriptors", many_descriptors},
    {"limit-scratch", fill_scratch}, {"limit-inodes", fill_inodes}, {"limit-locked-memory", lock_memory},
    {"limit-raise", raise_limit}, {"limit-cpu", compute_beyond},

    {"channel-operator", channel_operator}, {"channel-configuration", channel_configuration},
    {"channel-log", channel_log}, {"channel-flood", channel_flood}, {"channel-rate", channel_rate},
};

static const char *nonce_of(char **environment) {
    static const char name[] = "IRONBOUND_NONCE=";
    for (; *environment; environment++)
        if (length(*environment) == 48 && !memcmp(*environment, name, sizeof name - 1))
            return *environment + sizeof name - 1;
    return 0;
}

int program(long argc, char **argv, char **envp) {
    const char *nonce = nonce_of(envp);
    if (argc < 2 || argc > 3 || !nonce) return 2; /* without a nonce there is nothing to prove */
    wanted_size = argc == 3 ? argv[2] : 0;
    for (word i = 0; i < COUNT(probes); i++)
        if (same(probes[i].name, argv[1])) {
            probes[i].run();
            return report(argv[1], nonce);
        }
    return 2;
}
