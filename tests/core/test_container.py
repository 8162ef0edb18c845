"""Containers: what a runtime is told is what the standard knows, and the launch envelope is the one call."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from natives import MANIFEST, MODULE, NATIVES, NONCE, ROOTFS, changes, configuration, digest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from ironbound.core.canonical import Digest, FormatError, canonical, parse_json, sha256_hex
from ironbound.core.container import (
    DEVICES,
    HYBRID,
    OCI_RUNTIMES,
    Place,
    arguments,
    bubblewrap_arguments,
    command,
    envelope,
    oci_config,
    place_from,
    require_envelope,
)
from ironbound.core.native import plan

PLACE = Place("/images/tree", "/run/node/site-7", 71001, 71001, True, "/ironbound-site/7")
BINARIES = {"bubblewrap": "/usr/bin/bwrap", "runc": "/usr/sbin/runc", "crun": "/usr/bin/crun", "gvisor": "/opt/runsc"}


def place(runtime: str, **other: Any) -> Place:
    return replace(PLACE, cgroup="" if runtime == "bubblewrap" else PLACE.cgroup, **other)


def made(
    runtime: str, *, cores: str = "2,0", nonce: str | None = None, before: tuple[str, ...] = (), **other: Any
) -> dict[str, Any]:
    """The envelope as the node makes it."""
    config, where = configuration(runtime), place(runtime, **other)
    argv = [*before, *command(config, BINARIES[runtime], where, cores)]
    return envelope(
        config, MODULE, nonce, where, argv=argv, runtime_sha256=digest("runtime"), guard_sha256=digest("guard")
    )


# What the runtimes read


@pytest.fixture(scope="module")
def schema(shared_data: Path) -> Draft4Validator:
    """The OCI's own schema of config.json."""
    base = "https://oci.example/"
    documents = {path.name: json.loads(path.read_bytes()) for path in (shared_data / "oci-runtime-spec").glob("*.json")}
    resources = [(base + name, Resource(one, DRAFT4)) for name, one in documents.items()]
    return Draft4Validator({"$ref": base + "config-schema.json"}, registry=Registry().with_resources(resources))


def oci(runtime: str, **other: Any) -> Any:
    return parse_json(oci_config(configuration(runtime, **other), place(runtime)), limit=1 << 16)


@pytest.mark.parametrize("runtime", OCI_RUNTIMES)
def test_a_container_is_described_as_the_standard_says(runtime: str, schema: Draft4Validator) -> None:
    schema.validate(oci(runtime))
    schema.validate(oci(runtime, max_memory=1, max_cpu=1, max_processes=1))


def test_what_the_standard_does_not_know_would_be_seen(schema: Draft4Validator) -> None:
    value = oci("runc")
    for path, wrong in (("root", "here"), ("process", {"cwd": 1}), ("mounts", [{"type": "tmpfs"}])):
        assert not schema.is_valid({**value, path: wrong})
    value["linux"]["namespaces"][0]["type"] = "nothing"
    assert not schema.is_valid(value)


@pytest.mark.parametrize("runtime", OCI_RUNTIMES)
def test_a_container_has_the_limits_of_its_configuration_and_no_privilege(runtime: str) -> None:
    value = oci(runtime, max_memory=300, max_cpu=150, max_processes=9)
    linux, process = value["linux"], value["process"]
    assert linux["resources"]["memory"] == {"limit": 300 << 20, "swap": 300 << 20}
    assert linux["resources"]["cpu"] == {"period": 100_000, "quota": 150_000}
    assert linux["resources"]["pids"] == {"limit": 512 if runtime == "gvisor" else 9}
    assert linux["resources"]["devices"] == [{"access": "rwm", "allow": False}]
    assert process["noNewPrivileges"] is True and process["env"] == [] and process["args"] == ["/.ironbound/guard"]
    assert set(map(tuple, process["capabilities"].values())) == {()} and len(process["capabilities"]) == 5
    assert value["root"] == {"path": PLACE.rootfs, "readonly": True}
    assert process["user"] == {"uid": 71001, "gid": 71001} and not process["terminal"]
    kinds = {one["type"] for one in linux["namespaces"]}
    assert kinds == {"ipc", "mount", "network", "pid", "uts"} | ({"cgroup"} if runtime != "gvisor" else set())
    assert all(set(one) == {"type"} for one in linux["namespaces"])  # none that exists already
    (tmp,) = (one["options"] for one in value["mounts"] if one["destination"] == "/tmp")
    assert {"nosuid", "noexec", "nodev"} <= set(tmp)
    assert ("ro" in tmp) is (runtime == "gvisor")
    assert ("size=1048576" in tmp and "nr_inodes=32" in tmp) is (runtime != "gvisor")
    assert "seccomp" not in linux and "hooks" not in value


def test_bubblewrap_is_told_words_and_shares_nothing_with_the_host() -> None:
    words = bubblewrap_arguments(PLACE).split(b"\0")
    assert words.pop() == b""
    text = [word.decode() for word in words]
    assert {"--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--clearenv"} <= set(text)
    assert text[text.index("--cap-drop") + 1] == "ALL" and "--share-net" not in text
    assert text.index("--ro-bind") + 2 == text.index("/") and text[text.index("/") - 1] == PLACE.rootfs
    assert [text[at + 1] for at, one in enumerate(text) if one == "--dev-bind"] == [f"/dev/{one}" for one in DEVICES]
    assert not {"--bind", "--bind-try", "--dev", "--proc-bind"} & set(text)


@pytest.mark.parametrize("separated", [True, False])
@pytest.mark.parametrize("runtime", NATIVES)
def test_a_runtime_is_called_with_its_own_words_only(runtime: str, separated: bool) -> None:
    config = configuration(runtime)
    call = command(config, BINARIES[runtime], place(runtime, separated=separated), "1,3")
    assert BINARIES[runtime] in call and arguments(config, place(runtime)) not in call
    assert not any("profile" in word or "native" in word for word in call)
    if runtime == "bubblewrap":
        assert call[call.index("--cpu-list") + 1] == "1,3" and ("--reuid" in call) is separated
        assert call[-2:] == ["--", "/.ironbound/guard"]
    else:
        assert "--detach" in call and call[-1] == "site-7"
    if runtime == "gvisor":
        assert {"--network=none", "--oci-seccomp", "--host-uds=none", "--overlay2=none"} <= set(call)


# The envelope


ENVELOPES: list[Any] = [
    *(pytest.param(runtime, {"separated": separated, "nonce": nonce}, id=f"{runtime}-{separated}-{nonce is None}")
      for runtime in NATIVES for separated in (True, False) for nonce in (None, NONCE)),
    pytest.param("crun", {"before": HYBRID}, id="crun-hybrid"),
    pytest.param("bubblewrap", {"cores": "5"}, id="bubblewrap-one-core"),
]  # fmt: skip


@pytest.mark.parametrize(("runtime", "other"), ENVELOPES)
def test_the_envelope_that_the_node_makes_is_accepted(runtime: str, other: dict[str, Any]) -> None:
    found = made(runtime, **other)
    require_envelope(found, configuration(runtime), MODULE, other.get("nonce"))
    again: Any = parse_json(canonical(found), limit=1 << 16)
    require_envelope(again, configuration(runtime), MODULE, other.get("nonce"))
    assert found["fds"] == {
        "3": sha256_hex(canonical(configuration(runtime))),
        "4": sha256_hex(MODULE),
        "5": sha256_hex(plan(configuration(runtime), MANIFEST, other.get("nonce"))),
        "6": sha256_hex(arguments(configuration(runtime), place_from(found["place"]))),
    }


HOST = {("runtime_sha256",), ("guard_sha256",)}
"""What is the host's own to say: another digest there is not this check's to judge."""


@pytest.mark.parametrize(("runtime", "other"), ENVELOPES)
def test_each_change_in_one_place_is_refused(runtime: str, other: dict[str, Any]) -> None:
    found = made(runtime, **other)
    config, nonce = configuration(runtime), other.get("nonce")
    binary = found["argv"].index(BINARIES[runtime])
    host = {*HOST, ("argv", binary)} | ({("argv", binary - 1)} if runtime == "bubblewrap" else set())
    # Facts of the place that this runtime's call does not use.
    unused = ("cell", "cgroup", "uid", "gid") if runtime == "bubblewrap" else ("separated",)
    host |= {("place", name) for name in unused if name not in ("uid", "gid") or not found["place"]["separated"]}
    tried = 0
    for path, changed in changes(found):
        try:
            require_envelope(changed, config, MODULE, nonce)
        except FormatError:
            tried += 1
            continue
        assert path in host, (path, changed)
        # The host's own: still a digest, an absolute path, or no more processors than approved.
        assert len(changed["argv"]) == len(found["argv"])
        again = copy.deepcopy(changed)
        for name in ("runtime_sha256", "guard_sha256"):
            assert len(again[name]) == 64
            again[name] = found[name]
        assert again["argv"][binary].startswith("/")
        for at in (binary, *([binary - 1] if runtime == "bubblewrap" else [])):
            again["argv"][at] = found["argv"][at]
        again["place"] = found["place"]
        assert again == found
    assert tried > 400


@pytest.mark.parametrize("cores", ["", "0-63", "1,1", "0,1,2", "0, 1", "a", "01", "-1", "1,", "/usr/bin/bwrap"])
def test_bubblewrap_gets_no_more_processors_than_approved(cores: str) -> None:
    with pytest.raises(FormatError, match="processors"):
        require_envelope(made("bubblewrap", cores=cores), configuration("bubblewrap"), MODULE, None)


@pytest.mark.parametrize("runtime", NATIVES)
@pytest.mark.parametrize("binary", ["", "runc", "--debug", "./runc"])
def test_a_runtime_is_called_by_its_absolute_path(runtime: str, binary: str) -> None:
    found = made(runtime)
    found["argv"][found["argv"].index(BINARIES[runtime])] = binary
    with pytest.raises(FormatError):
        require_envelope(found, configuration(runtime), MODULE, None)


@pytest.mark.parametrize("runtime", ["runc", "gvisor", "bubblewrap"])
def test_no_other_program_comes_before_a_runtime(runtime: str) -> None:
    for before in (HYBRID, ("/bin/sh", "-c"), HYBRID[:3]):
        with pytest.raises(FormatError):
            require_envelope(made(runtime, before=before), configuration(runtime), MODULE, None)


@pytest.mark.parametrize("runtime", NATIVES)
def test_another_configuration_module_or_nonce_has_another_envelope(runtime: str) -> None:
    found, config = made(runtime), configuration(runtime)
    other = replace(MANIFEST, argv=("/bin/sh",)).encode()
    image = replace(MANIFEST, rootfs=digest("another")).encode()
    for name, more in (("max_memory", 500), ("max_processes", 15), ("max_open_files", 63), ("max_wall_clock", 61)):
        with pytest.raises(FormatError):
            require_envelope(found, configuration(runtime, **{name: more}), MODULE, None)
    for module, nonce in ((other, None), (image, None), (MODULE, NONCE), (b"\0asm", None), (b"{}", None)):
        with pytest.raises(FormatError):
            require_envelope(found, config, module, nonce)
    for name in NATIVES:
        if name != runtime:
            with pytest.raises(FormatError):
                require_envelope(found, configuration(name), MODULE, None)


def test_what_is_no_envelope_is_refused() -> None:
    config = configuration("runc")
    for value in (
        None,
        [],
        {},
        {"place": PLACE.as_value()},
        {**made("runc"), "argv": [1]},
        {**made("runc"), "argv": []},
    ):
        with pytest.raises(FormatError):
            require_envelope(value, config, MODULE, None)


def test_a_place_is_read_as_it_was_written_and_no_other_is() -> None:
    assert place_from(PLACE.as_value()) == PLACE
    wrong: tuple[Any, ...] = (
        None, {}, {**PLACE.as_value(), "more": 1}, {**PLACE.as_value(), "uid": "0"}, {**PLACE.as_value(), "uid": True},
        {**PLACE.as_value(), "separated": 1}, {**PLACE.as_value(), "separated": None},
        {**PLACE.as_value(), "cell": None}, {**PLACE.as_value(), "rootfs": "/" * 4097},
    )  # fmt: skip
    for value in wrong:
        with pytest.raises(FormatError):
            place_from(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(NATIVES), st.sampled_from([*made("runc")]), VALUES)
def test_whatever_stands_in_a_field_ends_in_an_answer_or_a_format_error(runtime: str, name: str, value: Any) -> None:
    found = made(runtime)
    with pytest.raises(FormatError):
        require_envelope({**found, name: value} if value != found[name] else {}, configuration(runtime), MODULE, None)


def test_the_image_in_the_envelope_is_the_manifests() -> None:
    assert made("runc")["rootfs_sha256"] == ROOTFS == Digest(MANIFEST.rootfs)
