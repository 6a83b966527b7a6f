"""`find_tools` and `call_tool`: thousands of tools behind two (agents.md, "Management tools" 9). Search by BM25 over what a tool says.

Words are stemmed and a few verbs that people use for the same thing count as one. Compiled once per view of a catalog version.
"""

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from tools.arguments import compile_arguments
from tools.catalog import View
from tools.descriptions import estimate_tokens
from tools.lint import TOKENS_PER_LIST
from tools.tool import Tool

ToolMode = Literal["all", "search", "auto"]
MOST_TOOLS = 60
"""`auto` searches beyond this many tools, or beyond 15,000 tokens of them."""
SHOWN = 5

_K1, _B = 1.2, 0.5
_NAME, _TITLE, _DESCRIPTION, _ARGUMENTS = 3.0, 2.0, 1.0, 0.5
"""How much a word counts by where it stands."""
_SYNONYM = 0.7
_EXACT = 0.2
_CAUTION = 0.85

FIND_TOOLS: dict[str, Any] = {
    "name": "find_tools",
    "title": "Gateway: Find tools",
    "description": (
        "Finds tools of the connected systems that are not listed here: say in plain words what you want to do. Answers with the five "
        "best, each with its arguments; call one with call_tool."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 500,
                "description": 'What to do and in which system. Example: "cancel an appointment in the clinic"',
            }
        },
        "required": ["query"],
    },
    "outputSchema": {
        "type": "object",
        "properties": {
            "summary": {"type": "string"},
            "tools": {"type": "array", "items": {"type": "object"}},
            "total": {"type": "integer"},
        },
        "required": ["summary", "tools", "total"],
        "additionalProperties": False,
    },
    "annotations": {
        "title": "Gateway: Find tools",
        "readOnlyHint": True,
        "destructiveHint": False,
        "idempotentHint": True,
        "openWorldHint": False,
    },
    "_meta": {"anthropic/alwaysLoad": True},
}
CALL_TOOL: dict[str, Any] = {
    "name": "call_tool",
    "title": "Gateway: Call tool",
    "description": (
        "Calls a tool by its name, also one that is not listed here: as find_tools or the answer of a change named it. The result is "
        "the tool's own."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "tool": {"type": "string", "description": "Name of the tool."},
            "arguments": {"type": "object", "description": "Its arguments, by its own schema."},
        },
        "required": ["tool"],
    },
    "annotations": {
        "title": "Gateway: Call tool",
        "readOnlyHint": False,
        "destructiveHint": True,
        "idempotentHint": False,
        "openWorldHint": True,
    },
    "_meta": {"anthropic/alwaysLoad": True},
}
_FIND_ARGUMENTS = compile_arguments({**FIND_TOOLS["inputSchema"], "additionalProperties": False})
_CALL_ARGUMENTS = compile_arguments(
    {
        **CALL_TOOL["inputSchema"],
        "properties": {
            # It can't call itself: a ring of call_tool in call_tool would only hide what is called.
            "tool": {"type": "string", "not": {"enum": ["call_tool"]}},
            "arguments": {"type": "object"},
        },
        "additionalProperties": False,
    }
)


def call_arguments(arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(tool, its arguments) of a call_tool. Raises InvalidArguments."""
    values = _CALL_ARGUMENTS.prepare(arguments).values
    return values["tool"], values.get("arguments", {})


def is_searched(mode: ToolMode, view: View) -> bool:
    """Whether this caller's list holds `find_tools` in place of every tool."""
    match mode:
        case "all":
            return False
        case "search":
            return bool(view.tools)
        case "auto":
            if len(view.tools) > MOST_TOOLS:
                return True
            return sum(estimate_tokens(t.entry_json.decode()) for t in view.tools) > TOKENS_PER_LIST


class Finder:
    """Answers `find_tools`; keeps the index of each view while the view lives."""

    def __init__(self) -> None:
        self._indexes: WeakKeyDictionary[View, Index] = WeakKeyDictionary()

    async def find(self, view: View, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The five best tools for a query in plain words. Raises InvalidArguments."""
        query = _FIND_ARGUMENTS.prepare(arguments).values["query"]
        index = self._indexes.get(view)
        if index is None:
            # Beside the loop: 2,000 tools take about half a second, once per catalog version.
            index = self._indexes[view] = await asyncio.to_thread(Index.of, view.tools)
        found = [view.tools[i] for i in index.search(query, SHOWN)]
        rows = [
            {"tool": t.name, "description": t.entry["description"][:500], "arguments": t.published.schema}
            for t in found
        ]
        summary = (
            f"The {len(rows)} best of {len(view.tools)} tools. Call one with call_tool."
            if rows
            else f"None of {len(view.tools)} tools has a word of this: try other words, or the system's name."
        )
        return {"summary": summary, "tools": rows, "total": len(view.tools)}


@dataclass(frozen=True, eq=False)
class Index:
    """BM25 with weighted fields. `postings`: stem -> (document, weighted count)."""

    postings: dict[str, list[tuple[int, float]]]
    norms: list[float]
    removing: frozenset[int]
    """Tools that delete: not among the first unless something is to go."""

    @classmethod
    def of(cls, tools: Sequence[Tool]) -> "Index":
        documents = [document_of(t) for t in tools]
        postings: dict[str, list[tuple[int, float]]] = {}
        sizes = [sum(d.values()) for d in documents]
        average = (sum(sizes) / len(sizes) if sizes else 0) or 1.0
        for i, document in enumerate(documents):
            for stem, count in document.items():
                postings.setdefault(stem, []).append((i, count))
        norms = [_K1 * (1 - _B + _B * size / average) for size in sizes]
        return cls(postings, norms, frozenset(i for i, t in enumerate(tools) if t.endpoint.method == "DELETE"))

    def search(self, query: str, most: int) -> list[int]:
        """Documents by falling score; those with the same score in their order."""
        scores: dict[int, float] = {}
        asked = terms_of(query)
        for stem in dict.fromkeys(asked):
            weight = _EXACT if stem.startswith("=") else 1.0
            # A word and its synonyms are one question: the best of them counts, a synonym as rare as all of them together.
            best: dict[int, float] = {}
            same = _same(stem)
            together = self._rarity(sum(len(self.postings.get(s, ())) for s in (stem, *same)))
            for term in (stem, *same):
                rows = self.postings.get(term, ())
                rarity = self._rarity(len(rows)) if term == stem else _SYNONYM * together
                for i, count in rows:
                    score = weight * rarity * count * (_K1 + 1) / (count + self.norms[i])
                    best[i] = max(best.get(i, 0.0), score)
            for i, score in best.items():
                scores[i] = scores.get(i, 0.0) + score
        if _REMOVAL.isdisjoint(asked):
            for i in self.removing & scores.keys():
                scores[i] *= _CAUTION
        return sorted(scores, key=lambda i: (-scores[i], i))[:most]

    def _rarity(self, documents: int) -> float:
        return math.log(1 + max(len(self.norms) - documents, 0) / (documents + 0.5))


def document_of(tool: Tool) -> dict[str, float]:
    """What a tool says of itself, as stems by weight."""
    said: dict[str, float] = {}
    properties: dict[str, Any] = tool.published.schema.get("properties", {})
    fields = (
        (tool.name, _NAME),
        (tool.title, _TITLE),
        (tool.endpoint.description, _DESCRIPTION),
        (" ".join(properties), _ARGUMENTS),
        (" ".join(str(p.get("description", "")) for p in properties.values()), _ARGUMENTS / 2),
    )
    for text, weight in fields:
        for word in terms_of(text):
            said[word] = said.get(word, 0.0) + weight
    return said


def terms_of(text: str) -> list[str]:
    """Stems of a text's words (camelCase and snake_case are words too), and each word as it is behind "=": "which visits" is a list."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text)
    words = [w for w in re.findall(r"[^\W_]+", spaced.lower()) if w not in _NOISE]
    return [*map(stem, words), *(f"={w}" for w in words)]


def stem(word: str) -> str:
    """A light English stemmer: plural, -ed, -ing, -er, -ion and a silent e go. Both sides pass it, so it need not be right."""
    if len(word) < 4 or not word.isascii() or word.isdecimal():
        return word
    for suffix, put, least in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= least:
            word = word[: -len(suffix)] + put
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 4 else word


_SUFFIXES = (
    ("ations", "", 3),
    ("ation", "", 3),
    ("ments", "", 3),
    ("ment", "", 3),
    ("ures", "", 4),
    ("ure", "", 4),
    ("ies", "y", 3),
    ("ions", "", 3),
    ("ing", "", 3),
    ("ion", "", 3),
    ("sses", "ss", 2),
    ("ers", "", 4),
    ("ed", "", 3),
    ("es", "", 3),
    ("er", "", 4),
    ("s", "", 3),
)
"""(ending, what stands for it, letters that must be left)"""
_NOISE: frozenset[str] = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could do does for from give has have how i if in into is it its let like me my need of on one "
        "or our out please should so some someone something that the their them then there these this those to up us want was we "
        "were when where whom whose why will with would you your",
    )
)
_SAME_WORDS = (
    "list search find query browse",
    "get read show fetch view display look retrieve open see",
    "list show get all every any which what who many much",
    "create add new make register insert open raise record enter note put write log file schedule book plan enroll sign start give",
    "update change edit modify set rename correct adjust fix",
    "delete remove erase drop destroy",
    "cancel abort stop withdraw void revoke call",
    "send post deliver mail email notify publish",
    "message text chat email",
    "book schedule reserve plan arrange",
    "move reschedule shift transfer postpone",
    "customer client account",
    "person people contact user member",
    "employee staff worker colleague work",
    "invoice bill",
    "pay payment charge",
    "refund reimburse money back",
    "ticket issue case incident bug",
    "order purchase buy bought",
    "ship shipment delivery parcel package",
    "file document attachment",
    "picture image photo",
    "meeting appointment event",
    "vacation holiday leave absence",
    "price cost rate",
    "stock inventory",
    "archive close",
    "approve accept confirm",
    "reject decline refuse deny",
    "assign give hand allocate",
    "count number many",
    "download export",
    "upload import attach",
    "start run launch trigger execute begin",
    "restart reboot",
    "log history record",
    "comment note remark reply",
    "folder directory",
    "remind reminder",
    "subscribe subscription",
    "request want wish ask apply",
)
"""What people say for the same thing, in the words of no system in particular."""
_REMOVING = ("delete", "remove", "erase", "drop", "destroy", "rid", "purge", "clear")


def _same(stemmed: str) -> frozenset[str]:
    return _SYNONYMS.get(stemmed, frozenset())


def _synonyms() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in _SAME_WORDS:
        stems = {stem(w) for w in line.split()}
        for s in stems:
            found.setdefault(s, set()).update(stems - {s})
    return {s: frozenset(others) for s, others in found.items()}


_SYNONYMS = _synonyms()
_REMOVAL = frozenset(map(stem, _REMOVING))
