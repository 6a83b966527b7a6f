"""What README and docs name exists, and what exists is named: commands, options, settings, tools, error codes, routes, fields, links."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from server.cli.main import app
from server.http_connection import CODES
from server.settings import _CLIENT_ONLY, ENV_PREFIX, FROM_FILES, Settings  # pyright: ignore[reportPrivateUsage]
from tests.reference import PAGES, commands, errors, page
from tests.world import gateway, http, served
from tools.models import EndpointConfig
from tools.naming import RESERVED

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
COMMANDS = dict(commands(typer.main.get_command(app)))
GROUPS = {words[:1] for words in COMMANDS if len(words) > 1}
SOURCES = [f.read_text("utf-8") for f in (ROOT / "server").rglob("*.py")]
LITERAL_CODES = {code for text in SOURCES for code in re.findall(r'refused\(.*, "([a-z_]+)", ', text)} | {
    *CODES.values()
}
"""Codes of the wires alone: no error class has them."""


def code_of(path: Path) -> list[str]:
    """Code spans and the lines of fenced blocks, continued lines joined."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    lines = [line for block in re.findall(r"```[^\n]*\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [*lines, *re.findall(r"`([^`\n]+)`", prose)]


def options_of(command: Any) -> set[str]:
    return {o for p in command.params for o in [*p.opts, *p.secondary_opts]} | {"--help"}


def headings_of(path: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200


@each_page
def test_links_lead_to_pages_and_headings_that_exist(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists(), target
        assert not anchor or anchor in headings_of(to), target


@each_page
def test_no_page_has_a_path_of_a_machine_or_an_address_of_a_registry(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"(?<![\w.])/(?:work|tmp|root|home|Users)/\S*", text) == []
    assert re.findall(r"\S*(?:pypi\.|npmjs\.|/simple/)\S*", text) == []


@each_page
def test_what_is_shown_as_json_can_be_pasted(path: Path) -> None:
    for block in re.findall(r"```json[^\n]*\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
        assert json.loads(block) is not None


@each_page
def test_every_setting_that_is_named_exists(path: Path) -> None:
    names = set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", path.read_text("utf-8")))
    assert (
        names - {n.upper() for n in Settings.model_fields} - _CLIENT_ONLY - {f"{n}_FILE" for n in FROM_FILES} == set()
    )


@each_page
def test_every_command_that_is_shown_exists_with_its_options(path: Path) -> None:
    for line in code_of(path):
        for shown in re.findall(r"(?<![\w/-])integrations-mcp ([^|;#&>]+)", line):
            words = shown.split()
            grouped = tuple(words[:1]) in GROUPS and not "".join(words[1:2]).startswith("-")
            name = tuple(words[: 2 if grouped else 1])
            # `keys create|list` names several; a lone group is its help.
            names = [(*name[:-1], last) for last in re.split(r"\\\||\|", name[-1])]
            for found in names:
                assert found in COMMANDS or found in GROUPS or found[0].startswith("-"), line
                options = {w.partition("=")[0] for w in words[len(name) :] if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", w)}
                if found in COMMANDS:
                    assert options <= options_of(COMMANDS[found]), line


@each_page
def test_every_option_that_is_named_exists(path: Path) -> None:
    known = set[str]().union(*(options_of(c) for c in COMMANDS.values()))
    named = {span.split()[0].partition("=")[0] for span in code_of(path) if span.startswith("--")}
    foreign = {"--header", "--method", "--cli", "--transport", "--strict"}
    assert named - foreign - known == set()


@each_page
def test_every_tool_of_the_gateway_that_is_named_exists(path: Path) -> None:
    """Words that look like one: a verb of management and one of its nouns."""
    looks = re.compile(
        r"(?<![\w.])(?:list|get|create|update|delete|test|preview|find|call)_(?:integration|result|tool|endpoint)\w*"
    )
    assert set(looks.findall(path.read_text("utf-8"))) - RESERVED == set()


def test_every_error_code_has_a_line_in_troubleshooting() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    named = {
        code for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for code in re.findall(r"`([a-z_]+)`", row)
    }
    exist = {e.code for e in errors()} | LITERAL_CODES
    spelled = {"upstream_error": "upstream_STATUS"}  # the status is part of the code that is shown
    assert {code for code in exist if spelled.get(code, code) not in text} == set()
    assert named - exist - {"upstream_timeout_unknown"} == set()


def test_every_field_of_an_endpoint_is_on_the_page_about_writing_one() -> None:
    words = set(re.findall(r"\w+", (ROOT / "docs" / "writing-an-endpoint.md").read_text("utf-8")))
    assert set(EndpointConfig.model_fields) - words == set()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_of_the_reference_is_as_the_code_is(name: str) -> None:
    """Stale? `python -m tests.reference` writes them again."""
    assert (ROOT / "docs" / "reference" / name).read_text("utf-8") == page(name)


@pytest.mark.anyio
async def test_every_route_that_is_named_exists(tmp_path: Path) -> None:
    async with gateway(tmp_path) as world, served(world) as url, http(url, await world.key()) as client:
        described = (await client.get("/openapi.json")).json()["paths"]
    routes = [route.split("/") for route in described]
    for path in DOCS:
        for named in re.findall(r"(?<![\w.-])/v1/[\w{}/.*-]+", path.read_text("utf-8")):
            parts = named.rstrip("/.").split("/")
            fits = [
                all(r == p or r.startswith("{") or p.startswith("{") for r, p in zip(route, parts, strict=True))
                for route in routes
                if len(route) == len(parts)
            ]
            assert any(fits), f"{path.name}: {named}"
