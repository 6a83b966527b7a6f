"""The JavaScript side of the tests is pinned, free of registry addresses, and bites."""

import json
import re

import pytest
from nodetools import SOURCES, node_env

LOCK = json.loads((SOURCES / "package-lock.json").read_text("utf-8"))


def test_the_lock_file_names_no_address_to_download_from() -> None:
    assert not [path for path, package in LOCK["packages"].items() if "resolved" in package]


def test_every_locked_package_has_a_checksum() -> None:
    assert [path for path, package in LOCK["packages"].items() if "integrity" not in package] == [""]


def test_what_is_asked_for_is_one_exact_version_each() -> None:
    wanted = json.loads((SOURCES / "package.json").read_text("utf-8"))["dependencies"]
    assert wanted == LOCK["packages"][""]["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+(-[a-z]+\.\d+)?", version) for version in wanted.values())


@pytest.mark.node
def test_ajv_tells_the_schemas_that_do_not_compile_by_name() -> None:
    tools = node_env()
    schemas = {"good": {"type": "object", "properties": {"a": {"type": "string"}}}, "bad": {"type": "thing"}}
    done = tools.run(tools.script("compile_schemas.mjs"), stdin=json.dumps(schemas))
    assert list(json.loads(done.stdout)) == ["bad"]
