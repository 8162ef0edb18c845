"""Profiles: what is written is what is approved, and what can't be enforced is refused."""

from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ironbound.core.canonical import FormatError, canonical, sha256_hex
from ironbound.core.profile import (
    LIMITS,
    MAX_LAYER_BYTES,
    RUNTIMES,
    SETTINGS,
    Layer,
    ProfileRefused,
    family_of,
    keys_of,
    merge,
    parse_configuration,
    require_provenance,
)

PROFILES = resources.files("ironbound") / "data" / "profiles"
STRICT = (PROFILES / "strict.toml").read_bytes()
SITE = (PROFILES / "site.toml").read_bytes()
NATIVE = (PROFILES / "native.toml").read_bytes()


def refused(*layers: bytes) -> ProfileRefused:
    with pytest.raises(ProfileRefused) as caught:
        merge([Layer(f"layer{number}.toml", data) for number, data in enumerate(layers)])
    return caught.value


def test_the_shipped_profile_becomes_the_contract_s_configuration() -> None:
    effective = merge([Layer("strict.toml", STRICT)])
    assert effective.config["runtime"] == {
        "type": "wasmtime",
        "strict_security": True,
        "disallowed_imports": ["wasi_snapshot_preview1", "*"],
        "max_memory": 128,
        "max_fuel": 2_000_000_000,
        "max_wall_clock": 3_600,
        "max_stack": 512,
        "max_instances": 1,
        "max_tables": 4,
        "max_table_elements": 10_000,
        "max_module_size": 8_388_608,
    }
    assert effective.config["version"] == 1
    assert effective.config["profile"] == "strict"
    assert effective.encoded == canonical(effective.config)
    assert effective.digest == sha256_hex(effective.encoded)
    assert parse_configuration(effective.encoded) == effective.config


def test_a_later_layer_wins_key_by_key_and_provenance_says_so() -> None:
    base, both = (
        merge([Layer("strict.toml", STRICT)]),
        merge([Layer("strict.toml", STRICT), Layer("site.toml", SITE)]),
    )
    assert both.config["runtime"]["max_memory"] == 64
    assert both.config["runtime"]["max_fuel"] == base.config["runtime"]["max_fuel"]
    assert both.provenance["runtime.max_memory"] == "site.toml"
    assert both.provenance["runtime.max_fuel"] == "strict.toml"
    assert set(both.provenance) == {"profile", *keys_of("wasmtime")}
    assert both.digest != base.digest


def test_an_approval_says_which_layer_set_which_key() -> None:
    effective = merge([Layer("strict.toml", STRICT), Layer("site.toml", SITE)])
    body = effective.approval_body()
    base, over = body["layers"]  # type: ignore[misc]
    assert (over["name"], over["sha256"]) == ("site.toml", sha256_hex(SITE))
    assert over["sets"] == ["runtime.max_memory", "runtime.max_wall_clock", "scratch.max_files"]
    assert set(base["sets"]) | set(over["sets"]) == {"profile", *keys_of("wasmtime")}
    require_provenance(effective.config, body)
    for wrong in (body | {"layers": [base]}, body | {"layers": [base, base, over]}, body | {"profile": "other"}):
        with pytest.raises(FormatError, match="provenance-differs"):
            require_provenance(effective.config, wrong)


def test_two_layers_of_one_name_are_refused() -> None:
    with pytest.raises(ProfileRefused) as caught:
        merge([Layer("a.toml", STRICT), Layer("a.toml", SITE)])
    assert caught.value.code == "layer-name"


def test_arrays_replace() -> None:
    over = b'[agent.runtime]\ndisallowed_imports = ["*"]\n'
    effective = merge([Layer("a", STRICT), Layer("b", over)])
    assert effective.config["runtime"]["disallowed_imports"] == ["*"]


def test_a_profile_without_a_name_is_called_after_its_base_layer() -> None:
    data = STRICT.replace(b'profile = "strict"', b"")
    assert merge([Layer("Site-A.toml", data)]).config["profile"] == "site-a"
    with pytest.raises(ProfileRefused) as caught:
        merge([Layer("A" * 65, data)])
    assert caught.value.code == "layer-name"


def base_of(key: str) -> bytes:
    """A whole profile that has this key."""
    native = NATIVE.replace(b"[agent.runtime]", b'[agent.runtime]\ntype = "runc"')
    return STRICT if key in keys_of("wasmtime") else native


@pytest.mark.parametrize("key", [*LIMITS, *SETTINGS])
def test_no_setting_has_a_default(key: str) -> None:
    name = key.partition(".")[2]
    lines = [line for line in base_of(key).splitlines() if not line.startswith(name.encode() + b" ")]
    refusal = refused(b"\n".join(lines))
    assert (refusal.code, refusal.key) == ("setting-missing", key)
    assert name in refusal.hint


@pytest.mark.parametrize("key", LIMITS)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("0", "limit-not-positive"),
        ("-1", "limit-not-positive"),
        ("true", "wrong-type"),
        ("1.0", "wrong-type"),
        ("inf", "wrong-type"),
        ("nan", "wrong-type"),
        ('"1"', "wrong-type"),
        ("[1]", "wrong-type"),
        ("{x=1}", "wrong-type"),
        ("1979-05-27", "wrong-type"),
        ("99999999999999999999999999999999", "limit-too-high"),
    ],
)
def test_a_limit_is_a_positive_bounded_integer(key: str, value: str, code: str) -> None:
    table, _, name = key.partition(".")
    refusal = refused(STRICT, f"[agent.{table}]\n{name} = {value}\n".encode())
    assert (refusal.code, refusal.key, refusal.layer) == (code, key, "layer1.toml")


@pytest.mark.parametrize("key", LIMITS)
def test_both_bounds_of_a_limit_are_allowed_and_one_beyond_is_not(key: str) -> None:
    table, _, name = key.partition(".")
    limit = LIMITS[key]
    for value in (limit.minimum, limit.maximum):
        layer = f"[agent.{table}]\n{name} = {value}\n".encode()
        assert merge([Layer("a", base_of(key)), Layer("b", layer)]).config[table][name] == value
    assert refused(STRICT, f"[agent.{table}]\n{name} = {limit.maximum + 1}\n".encode()).code == "limit-too-high"


def test_strict_security_false_is_refused_with_the_reason() -> None:
    refusal = refused(STRICT, b"[agent.runtime]\nstrict_security = false\n")
    assert refusal.code == "not-strict"
    assert refusal.hint == "there is no other mode"


def test_an_override_cannot_hide_what_its_base_says() -> None:
    base = STRICT.replace(b"strict_security = true", b"strict_security = false")
    refusal = refused(base, b"[agent.runtime]\nstrict_security = true\n")
    assert (refusal.code, refusal.layer) == ("not-strict", "layer0.toml")


@pytest.mark.parametrize("value", ["[]", '["wasi_snapshot_preview1"]', '["env", "wasi"]'])
def test_open_imports_are_refused_since_no_runtime_enforces_them(value: str) -> None:
    refusal = refused(STRICT, f"[agent.runtime]\ndisallowed_imports = {value}\n".encode())
    assert refusal.code == "allows-unenforced"
    assert "allows what no runtime enforces" in refusal.message


@pytest.mark.parametrize("value", ['"*"', "true", '["*", 1]', '["*", true]', '["*", ["x"]]'])
def test_disallowed_imports_is_a_list_of_strings(value: str) -> None:
    assert refused(STRICT, f"[agent.runtime]\ndisallowed_imports = {value}\n".encode()).code == "wrong-type"


def test_a_runtime_that_ironbound_does_not_have_is_refused_by_name() -> None:
    assert refused(STRICT, b'[agent.runtime]\ntype = "docker"\n').code == "runtime-unknown"
    assert refused(STRICT, b'[agent.runtime]\ntype = "runsc"\n').hint == "did you mean 'gvisor'?"
    assert refused(STRICT, b"[agent.runtime]\ntype = 1\n").code == "wrong-type"


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "wasmtime"])
def test_every_runtime_has_a_shipped_profile_and_takes_just_what_it_enforces(runtime: str) -> None:
    effective = merge([Layer("native.toml", NATIVE), Layer("layer.toml", (PROFILES / f"{runtime}.toml").read_bytes())])
    assert effective.config["profile"] == runtime
    assert parse_configuration(effective.encoded) == effective.config
    assert set(effective.provenance) == {"profile", *keys_of(runtime)}
    assert family_of(effective.config) != "wasm"
    refusal = refused(STRICT, f'[agent.runtime]\ntype = "{runtime}"\n'.encode())
    assert (refusal.code, refusal.key) == ("setting-unenforced", "runtime.disallowed_imports")
    refusal = refused(NATIVE, b'[agent.runtime]\ntype = "wasmtime"\n')
    assert refusal.code in ("setting-missing", "setting-unenforced")


@pytest.mark.parametrize(
    ("line", "key"), [("max_cpu = 50", "runtime.max_cpu"), ("max_memory = 255", "runtime.max_memory")]
)
def test_bubblewrap_refuses_by_name_what_only_a_cgroup_can_enforce(line: str, key: str) -> None:
    for runtime in ("runc", "crun", "gvisor"):
        assert merge([Layer("n", NATIVE), Layer("o", f'[agent.runtime]\ntype = "{runtime}"\n{line}\n'.encode())])
    refusal = refused(NATIVE, f'[agent.runtime]\ntype = "bubblewrap"\n{line}\n'.encode())
    assert (refusal.code, refusal.key) == ("setting-unenforced", key)
    encoded = merge([Layer("n", NATIVE), Layer("o", f'[agent.runtime]\ntype = "runc"\n{line}\n'.encode())]).encoded
    with pytest.raises(FormatError, match=key):
        parse_configuration(encoded.replace(b'"runc"', b'"bubblewrap"'))


@pytest.mark.parametrize(
    ("layer", "key", "hint"),
    [
        (b"[agent.runtime]\nmax_memroy = 1\n", "agent.runtime.max_memroy", "did you mean 'max_memory'?"),
        (b"[agent.runtme]\n", "agent.runtme", "did you mean 'runtime'?"),
        (b"[agents.runtime]\n", "agents", "did you mean 'agent'?"),
        (b"[agent.runtime]\ndebug = true\n", "agent.runtime.debug", None),
        (b"version = 1\n", "version", None),
        (b'[agent.runtime]\n"\\u202emax" = 1\n', "agent.runtime.\\u202emax", None),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_one_named(layer: bytes, key: str, hint: str | None) -> None:
    refusal = refused(STRICT, layer)
    assert (refusal.code, refusal.key) == ("unknown-key", key)
    if hint is not None:
        assert refusal.hint == hint


def test_malformed_toml_names_layer_and_line() -> None:
    refusal = refused(STRICT, b"[agent.runtime]\nmax_memory = = 3\n")
    assert (refusal.code, refusal.layer, refusal.line) == ("toml-malformed", "layer1.toml", 2)
    assert str(refusal).startswith("layer1.toml line 2: ")
    assert refused(b"a = 1\n\xff").line == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"#" * (MAX_LAYER_BYTES + 1), "layer-too-large"),
        (b"a" + b".a" * 8000 + b" = 1", "line-too-long"),
        (b"x = " + b"\n".join([b"[" * 900] * 5), "toml-malformed"),
        (b"agent = 1", "wrong-type"),
        (b"[agent]\nruntime = []", "wrong-type"),
        (b"profile = 1", "wrong-type"),
        ("profile = 'ſtrict'".encode(), "name-invalid"),
        (b"profile = 'Strict'", "name-invalid"),
        (b"profile = ''", "name-invalid"),
        (b"profile = 'a'\nprofile = 'b'", "toml-malformed"),
        (b"x = " + b"9" * 1000, "unknown-key"),
    ],
)
def test_bad_layers_are_refused_with_a_code(data: bytes, code: str) -> None:
    assert refused(data).code == code


def test_no_layers_and_too_many_are_refused() -> None:
    assert refused().code == "layer-count"
    assert refused(*[STRICT] * 17).code == "layer-count"


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_garbage_raises_profile_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ProfileRefused):
        merge([Layer("garbage", data)])


@given(st.data())
def test_every_single_value_replaced_in_a_configuration_is_judged_or_refused(data: st.DataObject) -> None:
    config = merge([Layer("strict.toml", STRICT)]).config
    table = data.draw(st.sampled_from(["runtime", "channel", "scratch"]))
    name = data.draw(st.sampled_from(sorted(config[table])))
    other = data.draw(st.none() | st.booleans() | st.integers(-5, 2**60) | st.text(max_size=5) | st.just([]))
    config[table] = {**config[table], name: other}
    try:
        encoded = canonical(config)
    except FormatError:
        return
    try:
        parsed = parse_configuration(encoded)
    except FormatError:
        return
    value = parsed[table][name]
    limit = LIMITS.get(f"{table}.{name}")
    assert (limit and type(value) is int and limit.minimum <= value <= limit.maximum) or value is True


@pytest.mark.parametrize("edit", [{"version": 2}, {"version": True}, {"extra": 1}, {"runtime": []}, {"scratch": {}}])
def test_a_configuration_that_no_profile_gives_is_refused(edit: dict[str, object]) -> None:
    config = {**merge([Layer("strict.toml", STRICT)]).config, **edit}
    with pytest.raises(FormatError):
        parse_configuration(canonical(config))


@pytest.mark.parametrize(
    ("value", "code"),
    [('["*", "a b"]', "name-invalid"), ('["*", ""]', "name-invalid"), ('["*", "*"]', "array-invalid")],
)
def test_disallowed_imports_are_names_each_once(value: str, code: str) -> None:
    assert refused(STRICT, f"[agent.runtime]\ndisallowed_imports = {value}\n".encode()).code == code
