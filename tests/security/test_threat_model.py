"""docs/security.md names tests that are there, for every attack, and the figures of the attack suite."""

import re
from collections.abc import Mapping
from pathlib import Path

from tests.security.catalog import ATTEMPTS
from tests.security.frame import ENTRIES, HOST_GUARDS, matrix, table
from tests.security.guards import GUARDS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/security.md").read_text("utf-8")


def test_every_attack_is_proved_by_tests_that_exist() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.partition("## How it is tested")[0], re.MULTILINE)
    assert len(rows) > 20
    for attack, _, proof in rows[1:]:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", proof)
        assert named or attack.strip("-") == "", attack
        for file, test in named:
            text = (ROOT / file).read_text("utf-8")
            assert not test or f"def {test}(" in text, f"{file}::{test}"


def test_the_figures_are_those_of_the_suite() -> None:
    assert table(ATTEMPTS) in PAGE, "run python -m tests.security.report and paste the table"
    assert len(ATTEMPTS) >= 1000
    assert {a.guard for a in ATTEMPTS} == set(GUARDS), "a guard that no attempt needs, or the other way round"


SAME_ORIGIN = {"SSE endpoint event", "next link"}
"""What they name must be of the origin that was asked, or nothing goes there: guards of their own, with attempts of their own."""
ANY_SCHEME = set(ENTRIES) - {"token_url", "discovered token_endpoint", "IdP JWKS"}
"""Where http is fine, or the URL is Google's own to the letter."""
NOT_ASKED: Mapping[str, set[str]] = {
    "address guard": {"SSE endpoint event"},
    # Google's URLs are compared as a whole; a document's server with a user part is no server to its reader.
    "URL shape": {*SAME_ORIGIN, "STS URL", "impersonation URL", "imported base_url"},
    "https for credentials": ANY_SCHEME,
    # A redirect of a call is the entry point "redirect", whatever named the first host; an MCP server's stream follows none.
    "redirect rules": {
        *SAME_ORIGIN,
        *("base_url", "endpoint base_url", "mcp_url", "mcp_url (SSE)"),
        *("importer URL", "imported base_url", "imported curl line"),
    },
    # The operator names identity providers himself: his list is for what workspaces name.
    "the operator's list of hosts": {*SAME_ORIGIN, "IdP JWKS"},
    "a proxy is asked for addresses": SAME_ORIGIN,
}


def test_each_guard_of_hosts_is_tried_at_each_entry_point_or_it_is_said_why_not() -> None:
    empty: dict[str, set[str]] = {guard: set() for guard in HOST_GUARDS}
    for (entry, guard), n in matrix(ATTEMPTS).items():
        if n == 0:
            empty[guard].add(entry)
    assert empty == NOT_ASKED


def test_no_attempt_is_listed_twice() -> None:
    ids = [(a.kind, a.entry, a.payload, a.guard, a.lenient) for a in ATTEMPTS]
    assert len(ids) == len(set(ids)), {i for i in ids if ids.count(i) > 1}
