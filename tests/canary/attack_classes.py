"""What was really tried elsewhere, and what here tries it again: each class of attack with its canaries and its tests.

`INCIDENTS` are those of shipped agent products, `ESCAPES` the classes of the published taxonomies of container escapes
and sandbox bypasses (MITRE ATT&CK T1611 and its kin), `FACTS` what is known of the runtimes that an attacker could use.
A canary is named as in probes.json, or by a beginning that ends in `-*`; a test by its file and its function.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Class → canaries and tests.
Rows = Mapping[str, tuple[str, ...]]

_SYSTEM = "system/test_"
_ATTACKS = "verifier/test_attacks.py::test_"
_CHANNEL = "system/test_operator_channel.py::test_"
_WINDOWS = "verifier/test_windows.py::test_"

INCIDENTS: Rows = {
    "a tool's parameter that switches the sandbox off": ("sandbox-switch", "channel-configuration"),
    "an agent that edits its own configuration, and a hot reload": (
        "own-configuration", "file-sealed", "channel-configuration",
        "system/test_files_between.py::test_a_file_changed_between_approval_and_launch_stops_the_launch_or_changes_nothing",
    ),
    "an agent that grants itself permissions through its tool channel": (
        "operator-verbs", "verb-spellings", "import-grant", "channel-operator"),
    "a sandbox's token that may push a policy for its own sandbox": ("borrowed-identity", "channel-configuration"),
    "self-approval where the connection's id is null": (
        "borrowed-identity", f"{_CHANNEL}a_request_without_a_signature_is_refused",
        f"{_CHANNEL}a_signer_on_no_roster_is_refused_as_initiator_and_as_approver",
        f"{_CHANNEL}one_human_twice_makes_no_quorum"),
    "an approval of one candidate, applied to another": (
        f"{_CHANNEL}an_approval_of_another_request_does_not_count", f"{_CHANNEL}an_edited_payload_is_refused"),
    "an approval replayed, a grant held back": (
        f"{_CHANNEL}a_replayed_request_is_refused",
        f"{_CHANNEL}an_expired_a_too_early_and_a_too_long_request_are_refused",
        f"{_CHANNEL}a_request_made_before_another_change_to_the_agent_is_stale"),
    "a child agent with more power than its parent": (
        "wider-child", "core/test_delegation.py::test_what_is_more_than_is_held_is_void_and_changes_nothing"),
    "a classifier that is talked round": ("talked-round",),
    "a capability bounding set left on": (
        "capability-bounding", f"{_SYSTEM}drift_containers.py::test_capabilities_gained_in_a_container_are_drift"),
    "lockdown silently reverted": (
        f"{_SYSTEM}drift_injections.py::test_a_limit_changed_from_outside_is_drift",
        f"{_ATTACKS}a_sandbox_weakened_later_without_a_drift_refutes_b3"),
    "the x32 ABI past seccomp": ("call-x32",),
    "UDP past Landlock": ("network-udp",),
    "io_uring": ("call-io-uring",),
    "/proc/self/mem": ("process-own-memory",),
    "abstract sockets": ("network-abstract",),
    "keyrings": ("call-keyring",),
    "userfaultfd": ("call-userfaultfd",),
    "ptrace of a sibling": ("process-ptrace-sibling",),
    "one provider's credentials sent to another host": (
        "credential-theft", "network-reach",
        "gateway/test_http_provider.py::test_a_credential_does_not_go_to_another_port_host_or_scheme"),
    "a log that is away while work goes on": (
        f"{_SYSTEM}crashes.py::test_without_a_log_no_act_happens_and_callers_are_told",),
    "a flood that drops the one record that matters": (
        "output-flood", "channel-flood", f"{_CHANNEL}hundreds_of_refusals_at_once_are_all_logged"),
    "a log's tail cut": (f"{_ATTACKS}a_tail_cut_off_is_a_gap",),
    "a log's middle cut": (f"{_ATTACKS}an_entry_cut_out_of_the_middle_is_seen_by_its_tile",),
    "a chain rewritten with recomputed hashes": (f"{_ATTACKS}a_chain_rewritten_with_its_hashes_lacks_the_witness",),
    "an old backup restored": (f"{_ATTACKS}an_old_backup_verifies_as_what_it_is_and_says_when_it_ends",
                               "witness/test_cosigner.py::test_a_rollback_is_refused_and_the_state_stays"),
    "two auditors shown two logs": (
        "witness/test_cosigner.py::test_a_fork_is_refused_at_the_same_size_and_beyond_it",
        "witness/test_cosigner.py::test_concurrent_requests_never_cosign_two_trees_of_one_size"),
    "an interior node passed off as a leaf": (f"{_ATTACKS}an_interior_node_is_no_leaf",),
    "fields outside the hash changed": ("ledger/test_hostile_peers.py::test_any_change_in_a_signed_entry_is_refused",),
    "an approval line written by the agent's own process": ("forged-entry", "forged-replies", "channel-log"),
    "an evidence file written by hand": (f"{_ATTACKS}evidence_written_by_hand_refutes_d3",),
    "a gate that is green but inert": (
        f"{_WINDOWS}time_in_which_no_agent_ran_needs_no_canary", f"{_ATTACKS}a_canary_that_was_never_run_is_missed",
        "node/test_microvm_controls.py::"
        "test_in_a_machine_without_its_wall_every_hostile_agent_escapes_but_where_the_list_says_why_none_can",
        "canary/test_native_controls.py::test_without_its_wall_the_probe_escapes_with_every_attempt",
        "sdk/test_canaries.py::test_with_just_that_wall_down_the_attempt_is_seen_to_succeed"),
    "a canary that tests a copy, not the live path": (
        f"{_WINDOWS}a_canary_on_another_runtime_or_boot_does_not_count", f"{_WINDOWS}a_replayed_result_does_not_count",
        f"{_WINDOWS}a_result_from_a_test_environment_does_not_count_where_the_trust_root_says_production"),
    "a policy file with a typo, skipped": (
        f"{_SYSTEM}command_line.py::test_a_profile_with_a_mistake_is_refused_with_cause_and_hint",
        "core/test_profile.py::test_an_unknown_key_is_refused_and_the_nearest_one_named"),
    "verification that prints a result and ends with 0 on corruption": (
        "verifier/test_command.py::test_a_broken_file_is_exit_3_and_no_traceback",
        "verifier/test_bundle.py::test_any_flipped_byte_of_a_member_breaks_it_though_the_checksums_are_made_to_fit"),
}  # fmt: skip

ESCAPES: Rows = {
    "mounts": ("mount-*",),
    "capabilities": ("capability-*", "prctl-set-mm", "no-new-privs-off"),
    "cgroup release_agent": ("cgroup-*",),
    "core_pattern": ("core-pattern", "modprobe-path", "binfmt-misc", "uevent-helper"),
    "procfs": ("sysrq-trigger", "sysctl-write", "kernel-*", "process-root", "process-environment"),
    "sysfs": ("sysfs-write",),
    "devices": ("device-*",),
    "namespaces": ("namespace-*",),
    "setuid": ("setuid-*", "setgid-root", "setgroups", "setfsuid-root", "file-chmod"),
    "ptrace": ("process-ptrace-parent", "process-ptrace-sibling", "process-read-memory", "process-write-memory"),
    "other processes": ("process-kill", "process-descriptor", "descriptor-leak"),
    "keyrings": ("call-keyring",),
    "BPF": ("call-bpf",),
    "perf": ("call-perf-event",),
    "userfaultfd": ("call-userfaultfd",),
    "io_uring": ("call-io-uring",),
    "foreign system call tables": ("call-x32", "call-i386", "call-modify-ldt", "call-iopl"),
    "raw sockets": ("network-raw", "network-packet", "network-netlink", "network-vsock", "network-crypto"),
    "TCP": ("network-tcp", "network-loopback", "network-listen", "network-reach", "import-sock-send"),
    "UDP": ("network-udp",),
    "abstract sockets": ("network-abstract",),
    "metadata addresses": ("network-metadata", "network-reach"),
    "host sockets": ("host-socket", "ledger-socket"),
    "fork bomb": ("limit-processes",),
    "memory bomb": ("limit-memory", "limit-locked-memory", "call-shared-memory", "initial-*", "memory-grow",
                    "start-memory", "table-grow", "many-tables", "many-instances"),
    "disk fill": ("limit-scratch", "limit-inodes"),
    "computing without end": ("limit-cpu", "fuel-loop", "start-loop", "stack-recursion", "call-priority"),
    "descriptors used up": ("limit-descriptors",),
    "limits raised": ("limit-raise", "seccomp-off", "landlock-widen", "personality"),
    "clock and host name": ("call-clock", "call-hostname"),
    "module loading": ("call-init-module",),
    "kexec": ("call-kexec", "call-reboot"),
    "other administration": ("call-swapon", "call-acct", "call-quotactl", "call-fanotify", "call-open-by-handle"),
    "/proc/self/mem and code that is written": ("process-own-memory", "call-writable-code", "call-memory-program",
                                                "call-null-page", "runtime-overwrite"),
    "the file system outside": ("file-outside-tmp", "file-symlink", "file-replace-guard", "import-path-open",
                                "path-traversal"),
    "pipe flood": ("channel-flood", "channel-rate", "output-flood", "malformed-messages"),
    "operator verbs": ("operator-verbs", "verb-spellings", "channel-operator", "channel-log", "log-tampering",
                       "name-tricks", "doubled-keys", "session-games", "resource-reach"),
}  # fmt: skip

_SANDBOX = "node/test_sandbox.py::test_"

FACTS: Rows = {
    "an import that nobody defined": ("import-*", "component-random"),
    "a runtime that compiles text": (
        "text-module", f"{_SANDBOX}text_components_and_other_bytes_are_refused_as_modules"),
    "proposals beyond the first version of Wasm": ("feature-*",),
    "memory over the store's limit": ("initial-memory", "memory-grow", "start-memory"),
    "a second instance": (f"{_SANDBOX}a_second_instance_is_refused_by_the_store",),
    "fuel, interrupts, stack and bounds as traps": ("fuel-loop", "stack-recursion", "out-of-bounds", "answer-outside"),
    "a worker whose lockdown is per thread": (f"{_SANDBOX}a_worker_looks_from_outside_as_it_should_held_and_running",),
    "Landlock lets UDP through": ("network-udp", "node/test_walls.py::test_without_the_filter_its_probes_escape"),
    "gVisor ignores a filter that it is not told to heed": ("call-*", "seccomp-off"),
    "gVisor counts computing time in its own way": ("limit-cpu",),
    "a container's root that is writable": ("file-outside-tmp", "file-replace-guard", "mount-remount"),
    "a machine that brings devices along": ("network-vsock", "device-*"),
    "a configuration that is read twice": (
        "file-sealed", f"{_SANDBOX}the_consumed_digests_are_those_of_the_bytes_handed_over",
        "system/test_files_between.py::test_a_file_changed_between_approval_and_launch_stops_the_launch_or_changes_nothing"),
    "a runtime's binary replaced while it runs": (
        "runtime-overwrite",
        f"{_SYSTEM}drift_injections.py::test_a_runtime_changed_on_disk_after_it_was_measured_is_drift_and_starts_nothing_more"),
    "a Landlock domain that nobody can see": (
        "landlock-widen", "node/test_guard.py::test_a_landlock_that_only_pretends_to_stand_is_noticed_by_its_probes"),
    "a TPM that is another": (
        f"{_SYSTEM}challenges.py::"
        "test_a_node_with_a_tpm_has_each_launch_quoted_and_does_not_start_with_another_tpm",),
}  # fmt: skip
