"""integrations and config as code from the shell: the words, the JSON, and the exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.processes import run
from tests.world import listening

FILE = """\
name: shop
display_name: Shop
base_url: ${SHOP_URL}
auth: {type: api_key_header, api_key_value: {value: "${SHOP_KEY}"}}
endpoints:
  - name: get_item
    description: Gets one.
    method: GET
    path: /items/{id}
"""
KEY = "canary-0123456789"
ENV = {"SHOP_URL": "http://127.0.0.1:9", "SHOP_KEY": KEY, "INTEGRATIONS_MCP_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8"}


def cli(home: Path, *arguments: str, code: int = 0, **env: str) -> str:
    """stdout of a command that must end with `code`; the key may be nowhere."""
    done = run(home, *arguments, env={**ENV, **env})
    assert done.returncode == code, done.stderr + done.stdout
    assert KEY not in done.stdout + done.stderr
    return done.stdout


def as_json(home: Path, *arguments: str, code: int = 0, **env: str) -> Any:
    return json.loads(cli(home, *arguments, "--json", code=code, **env))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With the integration `shop`."""
    (tmp_path / "shop.yaml").write_text(FILE)
    assert as_json(tmp_path, "integrations", "create", "-f", "shop.yaml")["name"] == "shop"
    return tmp_path


def test_an_integration_is_listed_read_changed_and_deleted(home: Path) -> None:
    assert [i["name"] for i in as_json(home, "integrations", "list")["items"]] == ["shop"]
    shown = as_json(home, "integrations", "get", "shop")
    assert shown["auth"]["ssm_param_path"].endswith("/api_key")
    changed = as_json(home, "integrations", "update", "shop", "--set", "enabled=false", "--set", "display_name=S")
    assert (changed["enabled"], changed["display_name"], changed["endpoints"]) == (False, "S", shown["endpoints"])
    assert as_json(home, "integrations", "list", "--enabled")["items"] == []
    assert as_json(home, "integrations", "delete", "shop", "--yes")["deleted"] == "shop"
    assert as_json(home, "integrations", "get", "shop", code=1)["error_code"] == "not_found"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["create", "-f", "shop.yaml"], 1, "name_taken"),
        (["get", "nobody"], 1, "not_found"),
        (["update", "shop", "--set", "display_nam=x"], 1, "invalid_request"),
        (["update", "shop", "--set", "enabled=false", "--if-match", "7"], 1, "version_mismatch"),
        (["test", "shop", "get_itm"], 1, "not_found"),
        (["test", "shop", "get_item", "--args", "{}"], 1, "invalid_request"),
        (["list", "--sort-by", "size"], 1, "invalid_request"),
    ],
)
def test_refusals_have_the_codes_of_the_rest_contract(home: Path, arguments: list[str], code: int, error: str) -> None:
    assert as_json(home, "integrations", *arguments, code=code)["error_code"] == error


@pytest.mark.parametrize("arguments", [["delete", "shop"], ["update", "shop"], ["update", "shop", "--set", "x"]])
def test_wrong_usage_is_exit_code_2_and_changes_nothing(home: Path, arguments: list[str]) -> None:
    cli(home, "integrations", *arguments, code=2)
    assert as_json(home, "integrations", "get", "shop")["enabled"]


def test_faults_are_told_with_file_line_and_the_nearest_name(home: Path) -> None:
    (home / "bad.yaml").write_text(FILE.replace("display_name", "disply_name").replace("shop", "shop2"))
    done = run(home, "integrations", "create", "-f", "bad.yaml", env=ENV)
    assert done.returncode == 1
    assert "bad.yaml:2: disply_name: unknown field; did you mean display_name?" in done.stderr.splitlines()


@pytest.mark.anyio
async def test_a_test_shows_every_stage_and_health_says_whether_it_answers(home: Path) -> None:
    import anyio

    async def item(request: Request) -> JSONResponse:
        return JSONResponse({"id": request.path_params["id"], "key": request.headers["x-api-key"]})

    upstream = Starlette(routes=[Route("/items/{id}", item), Route("/", lambda _: JSONResponse({}))])
    async with listening(upstream) as base:

        def seen() -> tuple[Any, Any, str]:
            cli(home, "apply", "-f", "shop.yaml", "--yes", SHOP_URL=base)
            tested = as_json(home, "integrations", "test", "shop", "get_item", "--args", '{"id": "7"}', "--explain")
            return tested, as_json(home, "integrations", "health"), cli(home, "integrations", "test", "shop")

        tested, health, connection = await anyio.to_thread.run_sync(seen)
    assert (tested["status_code"], tested["final_result"]) == (200, '{"id":"7","key":"[secret]"}')
    assert tested["explain"]["request"]["url"] == f"{base}/items/7"
    assert [i["status"] for i in health["integrations"]] == ["healthy"]
    assert connection.startswith("shop: healthy")
    assert as_json(home, "integrations", "health", code=1)["status"] == "unhealthy"


def test_apply_shows_its_plan_and_asks_before_it_writes(home: Path) -> None:
    (home / "shop.yaml").write_text(FILE.replace("/items/", "/i/"))
    assert '    endpoints.get_item.path: "/items/{id}" -> "/i/{id}"' in cli(home, "diff", "-f", "shop.yaml", code=1)
    cli(home, "apply", "-f", "shop.yaml", code=2)
    assert as_json(home, "integrations", "get", "shop")["endpoints"][0]["path"] == "/items/{id}"
    done = as_json(home, "apply", "-f", "shop.yaml", "--yes")
    assert (done["applied"], [s["action"] for s in done["plan"]]) == (True, ["update"])
    assert cli(home, "diff", "-f", "shop.yaml").splitlines()[-1] == "nothing to change"
    assert cli(home, "apply", "-f", "shop.yaml").splitlines()[-1] == "nothing to change"


def test_export_gives_files_that_check_and_apply_take_and_no_secret(home: Path) -> None:
    cli(home, "export", "--dir", "out")
    text = (home / "out" / "shop.yaml").read_text()
    assert KEY not in text
    assert "secrets set /gw/default/integrations/" in text
    assert cli(home, "export", "shop") == cli(home, "export")
    cli(home, "check", "out")
    assert cli(home, "diff", "-f", "out").splitlines()[-1] == "nothing to change"


def test_check_needs_no_registry_and_names_a_missing_variable(home: Path) -> None:
    done = run(home, "check", "shop.yaml", env={"SHOP_URL": "https://x.example", "INTEGRATIONS_MCP_HOME": "/nowhere"})
    assert done.returncode == 1
    assert done.stderr.startswith("shop.yaml:4: auth.api_key_value.value: the environment variable SHOP_KEY isn't set")


def test_the_tools_are_listed_and_linted(home: Path) -> None:
    assert "shop_get_item" in [t["name"] for t in as_json(home, "tools")["tools"]]
    rows = as_json(home, "tools", "lint")["rows"]
    assert {"description_short", "argument_description"} >= {r["rule"] for r in rows} > set()
