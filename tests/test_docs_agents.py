"""docs/agents.md and docs/many-tools.md say what the tools say."""

import re
from pathlib import Path

from tools.admin_tools.endpoints import ENDPOINTS
from tools.admin_tools.history import HISTORY
from tools.admin_tools.importing import IMPORTING
from tools.admin_tools.reading import READING
from tools.admin_tools.testing import TESTING
from tools.admin_tools.writing import WRITING
from tools.finding import MOST_TOOLS, SHOWN
from tools.naming import RESERVED
from tools.repair import PROBLEM_FIELDS

DOCS = Path(__file__).parent.parent / "docs"
AGENTS = (DOCS / "agents.md").read_text("utf-8")
TOOLS = {t.name: t for t in (*READING, *HISTORY, *TESTING, *WRITING, *ENDPOINTS, *IMPORTING)}


def test_the_table_has_each_management_tool_with_its_permission() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (Integration\.\w+)", AGENTS, re.MULTILINE))
    assert rows == {name: tool.permission for name, tool in TOOLS.items()}


def test_each_management_tool_has_a_reserved_name_so_that_no_endpoint_can_take_it() -> None:
    assert {*TOOLS, "get_result", "find_tools", "call_tool"} == RESERVED


def test_the_fields_of_a_problem_are_those_of_the_table() -> None:
    section = AGENTS.split("## Repairing an endpoint")[1].split("A fix is derived for")[0]
    rows = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(PROBLEM_FIELDS)


def test_the_figures_of_many_tools_are_those_of_the_code() -> None:
    page = (DOCS / "many-tools.md").read_text("utf-8")
    assert f"more than {MOST_TOOLS} tools" in page
    assert SHOWN == 5
    assert "the five best tools" in page
