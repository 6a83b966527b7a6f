"""Settings are read once; what can't be used is refused with what to write instead."""

import base64
from pathlib import Path
from typing import Any

import pytest

from server.settings import Settings, SettingsError, read_settings

EXAMPLES: dict[str, tuple[str, Any]] = {
    "HOME": ("/srv/x", Path("/srv/x")),
    "DATABASE_URL": ("sqlite:////srv/x.db", "sqlite:////srv/x.db"),
    "WORKSPACE": ("acme", "acme"),
    "SECRET_PREFIX": ("p", "p"),
    "STDIO_ALLOW": ('["/bin/a", "/bin/b"]', ("/bin/a", "/bin/b")),
    "TEST_REQUIRES": ("view", "view"),
    "PUBLIC_URL": ("https://gw.example/", "https://gw.example"),
    "HOST": ("0.0.0.0", "0.0.0.0"),
    "PORT": ("0", 0),
    "WORKERS": ("2", 2),
    "ALLOWED_HOSTS": ("a.example, b.example:*", ("a.example", "b.example:*")),
    "MAX_BODY_BYTES": ("2048", 2048),
    "GRACE_SECONDS": ("0.5", 0.5),
    "RESULT_BUDGET": ("0", 0),
    "TOOL_NAME_MAX": ("64", 64),
    "TOOLS_PAGE_SIZE": ("10", 10),
    "LOG_LEVEL": ("debug", "debug"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_setting_is_read_from_its_variable(name: str) -> None:
    text, value = EXAMPLES[name]
    assert getattr(read_settings({f"INTEGRATIONS_MCP_{name}": text}), name.lower()) == value


def test_flags_win_over_the_environment_and_what_is_not_given_is_the_default() -> None:
    read = read_settings({"INTEGRATIONS_MCP_PORT": "1"}, port=2, host=None)
    assert (read.port, read.host) == (2, "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("PROT", "PORT"), ("DATABASE", "DATABASE_URL"), ("PUBLICURL", "PUBLIC_URL"), ("LOGLEVEL", "LOG_LEVEL")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(
        SettingsError, match=f"INTEGRATIONS_MCP_{name} is not a setting; did you mean INTEGRATIONS_MCP_{nearest}"
    ):
        read_settings({f"INTEGRATIONS_MCP_{name}": "1"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "70000", "less than or equal to 65535"),
        ("PORT", "http", "integer"),
        ("WORKERS", "0", "greater than or equal to 1"),
        ("WORKSPACE", "a/b", "pattern"),
        ("TEST_REQUIRES", "nothing", "'execute' or 'view'"),
        ("ALLOW_PRIVATE_NETWORKS", "maybe", "write true, false or CIDRs like 10.0.0.0/8"),
        ("STDIO_ALLOW", "python", "not absolute"),
        ("STDIO_ALLOW", "[", "not valid JSON"),
        ("PUBLIC_URL", "gw.example", "begins with https://"),
        ("SECRET_PATHS_ALLOW", '[{"path": "/aws/x/y", "origins": []}]', "aws or ssm"),
        ("SECRET_PATHS_ALLOW", '[{"path": "/p/x", "origins": ["api.example"]}]', "no origin"),
        ("SECRET_PATHS_ALLOW", '[{"path": "/p/x//", "origins": []}]', "secret path"),
        ("LOG_LEVEL", "loud", "'debug'"),
    ],
)
def test_a_value_that_cannot_be_used_says_what_to_write(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as e:
        read_settings({f"INTEGRATIONS_MCP_{name}": value})
    assert name in str(e.value)
    assert said in str(e.value)


def test_every_fault_is_told_at_once_and_a_secret_is_never_quoted() -> None:
    key = base64.b64encode(b"k" * 32).decode()
    with pytest.raises(SettingsError) as e:
        read_settings(
            {"INTEGRATIONS_MCP_PORT": "x", "INTEGRATIONS_MCP_WORKERS": "y", "INTEGRATIONS_MCP_SECRET_KEY": key}
        )
    assert "PORT" in str(e.value)
    assert "WORKERS" in str(e.value)
    assert key not in str(e.value)
    assert key not in repr(read_settings({"INTEGRATIONS_MCP_SECRET_KEY": key}))


@pytest.mark.parametrize(
    ("text", "networks"),
    [("true", True), ("no", False), ("", False), ("10.0.0.0/8, fd00::/8", ("10.0.0.0/8", "fd00::/8"))],
)
def test_private_networks_are_all_none_or_listed(text: str, networks: Any) -> None:
    read = Settings(allow_private_networks=text).private_networks
    assert (read if isinstance(read, bool) else tuple(str(n) for n in read)) == networks


def test_the_operators_secret_paths_may_go_to_origins_as_people_write_them() -> None:
    text = '[{"workspace": "acme", "path": "/p/team/", "origins": ["https://API.example", "http://b.example:8080/v1"]}]'
    (entry,) = read_settings({"INTEGRATIONS_MCP_SECRET_PATHS_ALLOW": text}).allowed_secret_paths
    assert entry.origins == ("http://b.example:8080", "https://api.example:443")
    assert entry.covers("acme", "/p/team/key")
