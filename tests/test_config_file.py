"""Files of integrations: the line of every fault, variables, and what is read back as it was."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config_check import check_entries
from server.config_export import dump, escaped
from server.config_file import ConfigError, parse_text, read_entries
from tests.world import LOOPBACK
from tools.checks import CheckRules

GOOD = """\
integrations:
  - name: shop
    display_name: Shop
    base_url: https://shop.example.com
    endpoints:
      - name: get_item
        description: Gets one.
        method: GET
        path: /items/{id}
"""


def faults(text: str, environ: dict[str, str] | None = None) -> list[str]:
    try:
        check_entries(parse_text(text, "f.yaml", environ or {}), CheckRules(LOOPBACK))
    except ConfigError as e:
        return str(e).split("\n")
    return []


def test_a_right_file_has_no_faults() -> None:
    assert faults(GOOD) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("method: GET", "method: GOT"), "f.yaml:8: endpoints.0.method: "),
        (("path: /items/{id}", "path: /items/{id"), "f.yaml:9: endpoints.0.path: "),
        (("display_name: Shop", "disply_name: Shop"), "f.yaml:3: disply_name: unknown field; did you mean display_name?"),
        (("    display_name: Shop\n", ""), "f.yaml:2: display_name: Field required"),
        (("https://shop.example.com", "shop.example.com"), "f.yaml:4: base_url: "),
        (("name: get_item", "name: get item"), "f.yaml:6: endpoints.0.name: "),
        (("display_name: Shop", "name: twice"), "f.yaml:3: integrations.0: name is given twice"),
        (("display_name: Shop", "display_name: ${NO_SUCH}"), "f.yaml:3: integrations.0.display_name: the environment variable NO_SUCH"),
        (("display_name: Shop", "display_name: [Shop"), "f.yaml:4: "),
        (("integrations:", "integrations: 3 #"), "f.yaml:"),
        (("- name: shop", "- 7\n  - name: shop"), "f.yaml:2: "),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_line(change: tuple[str, str], expected: str) -> None:
    told = faults(GOOD.replace(*change))
    assert any(line.startswith(expected) for line in told), told


def test_all_faults_of_all_integrations_are_told_at_once() -> None:
    second = GOOD.replace("integrations:\n", "").replace("shop", "other").replace("GET", "GOT")
    told = faults(GOOD.replace("GET", "GUT") + second)
    assert [line.split(": ")[0] for line in told] == ["f.yaml:8", "f.yaml:16"]


def test_two_integrations_of_a_file_may_not_give_tools_of_one_name() -> None:
    second = GOOD.replace("integrations:\n", "").replace("name: shop", "name: shop_get").replace("get_item", "item")
    assert any("shop_get_item, which is taken by" in line for line in faults(GOOD + second))


def test_an_inline_value_stands_for_its_path() -> None:
    auth = "    auth: {type: api_key_header, api_key_value: {value: '${KEY}'}}\n"
    assert faults(GOOD.replace("    endpoints", auth + "    endpoints"), {"KEY": "k"}) == []


def test_variables_are_expanded_as_text_and_can_be_escaped() -> None:
    text = GOOD.replace("Gets one.", "'${A}${A} $${A} ${-}'")
    entry = parse_text(text, "f", {"A": "x: [${A}]\n- y"})[0]
    assert entry.data["endpoints"][0]["description"] == "x: [${A}]\n- yx: [${A}]\n- y ${A} ${-}"


def test_a_server_expands_nothing() -> None:
    with pytest.raises(ConfigError, match=r"f:4: .*isn't expanded by a server"):
        parse_text(GOOD.replace("shop.example.com", "${HOME}"), "f", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("12:30", "12:30"), ("0123", "0123"), ("2024-01-02", "2024-01-02"), ("true", True), ("1e3", 1000.0),
     ("", None), ("~", None), ("-7", -7), ("yes", "yes"), (".inf", ".inf"), ("'1'", "1")],
)  # fmt: skip
def test_scalars_are_those_of_json(text: str, value: Any) -> None:
    found = parse_text(f"name: {text}", "f", {})[0].data["name"]
    assert (found, type(found)) == (value, type(value))


def test_an_alias_that_holds_itself_ends_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="too deep"):
        parse_text("a: &x\n  b: *x\n", "f", {})


@pytest.mark.parametrize("depth", [400, 5_000])
def test_a_file_nested_too_deep_ends_with_a_sentence(depth: int) -> None:
    with pytest.raises(ConfigError, match=r"too deep|nesting depth"):
        parse_text("[" * depth + "]" * depth, "a.yaml", {})


def test_a_fault_in_what_a_merge_key_brought_in_is_told_at_the_line_where_it_stands() -> None:
    text = "name: a\nlabels: &l\n  x: 1\n  y: 2\nmore:\n  <<: *l\n  y: 3\n"
    (entry,) = parse_text(text, "a.yaml", {})
    assert [entry.fault(("more", key), "m").line for key in ("x", "y", "z")] == [3, 7, 6]


def test_a_variable_behind_an_alias_is_expanded_once() -> None:
    entry = parse_text("a: &x $${A}\nb: *x\n", "f", {"A": "no"})[0]
    assert entry.data == {"a": "${A}", "b": "${A}"}


def test_a_folder_is_read_by_the_names_of_its_files_and_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("name: bb\ndisplay_name: B\n")
    (tmp_path / "a.json").write_text('{"name": "aa", "display_name": "A"}')
    (tmp_path / "notes.txt").write_text("not one")
    assert [e.name for e in read_entries(tmp_path, {})] == ["aa", "bb"]
    (tmp_path / "c.yaml").write_text("display_name: C\nname: bb\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: name: bb is in .*b\.yaml:1 already"):
        read_entries(tmp_path, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from(["no", "1e5", "0x1F", "12:30", "~", "null", "<<", "${A}", "a: b", "- x", "x\n", " x\ny ", "#"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_what_is_exported_reads_back_as_it_was(value: Any) -> None:
    text = dump({"name": escaped(value)})
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert parse_text(text, "f", {})[0].data == {"name": value}
