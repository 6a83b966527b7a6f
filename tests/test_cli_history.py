"""history from the shell: calls and changes, as a page of REST and as a table, newest first and page by page."""

import json
from pathlib import Path
from typing import Any

from tests.processes import run

FILE = """\
name: shop
display_name: Shop
base_url: https://shop.example
endpoints: [{name: get_item, description: Gets one., method: GET, path: "/items/{id}"}]
"""


def page(home: Path, *words: str) -> dict[str, Any]:
    done = run(home, "history", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_done_from_the_shell_is_in_the_history(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(FILE)
    assert run(tmp_path, "integrations", "create", "-f", "shop.yaml").returncode == 0
    assert run(tmp_path, "keys", "create", "--name", "k").returncode == 0
    assert run(tmp_path, "call", "shop_get_item", "--args", '{"idd": 1}').returncode == 1
    first = page(tmp_path, "audit", "--limit", "1")
    assert [(c["action"], c["name"], c["caller"]) for c in first["items"]] == [("api_key.create", "k", "local")]
    second = page(tmp_path, "audit", "--limit", "1", "--continue", str(first["continuation_token"]))
    assert [c["action"] for c in second["items"]] == ["integration.create"]
    assert second["has_more"] is False
    assert page(tmp_path, "audit", "--integration", "shop")["items"] == second["items"]
    calls = page(tmp_path, "calls", "--failed", "--integration", "shop")["items"]
    assert [(c["tool"], c["error_code"]) for c in calls] == [("shop_get_item", "invalid_arguments")]
    assert page(tmp_path, "calls", "--ok")["items"] == []
    table = run(tmp_path, "history", "calls").stdout.splitlines()
    assert len(table) == 2
    assert "invalid_arguments" in table[1]


def test_history_of_an_unknown_integration_is_not_found(tmp_path: Path) -> None:
    done = run(tmp_path, "history", "calls", "--integration", "nobody", "--json")
    assert (done.returncode, json.loads(done.stdout)["error_code"]) == (1, "not_found")
