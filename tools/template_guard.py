"""What a template may not hold, found before the engine compiles it.

MiniJinja's fuel counts instructions and text, not lists: `[1] * 10**12`, or thirty times `{% set a = [a, a] %}`, would end the
process. So what can multiply a list is refused: `*` (the filter `times` is for numbers), `+` without a number written beside it
(the filter `plus`), and lists, tuples and objects of anything but constants. Raw blocks are refused too: without them this module
reads a source exactly as the engine does.
"""

import re
from typing import Final

_OPEN = re.compile(r"\{\{|\{%|\{#")
_TOKEN = re.compile(
    r"""\s+|(?P<close>[-+]?[%}]\})|(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<number>\d[\w.]*)|(?P<name>[^\W\d]\w*)|.""",
    re.DOTALL,
)
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None"})
_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "elif", "else", "for", "set", "do", "with", "filter", "call"}
)
MULTIPLIERS = ("batch", "slice", "chain", "zip")
"""Filters that put one list into another many times."""
MAX_GROUPBY: Final = 3
MAX_OPERATORS: Final = 1000
"""The engine's compiler is quadratic in the length of a chain of `~`."""


class TemplateSyntaxError(ValueError):
    """The template doesn't parse or is over a limit; says where. For the person who wrote it."""


class _Scan:
    """The tokens of one tag, checked in one pass; see the module's docstring for why."""

    __slots__ = ("brackets", "tokens")

    def __init__(self) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.brackets: list[str] = []  # "literal", "index", "call" or "group", innermost last

    def take(self, kind: str, text: str) -> None:
        before, name = self.tokens[-1] if self.tokens else ("", "")
        after_value = before == "string" or name in (")", "]") or (before == "name" and name not in _KEYWORDS)
        inside = self.brackets[-1] if self.brackets else ""
        if inside == "literal" and kind == "name" and text not in _CONSTANTS:
            raise TemplateSyntaxError(
                f"a list or object in a template holds constants only, not {text!r}; join text with ~"
            )
        match text if not kind else "":
            case "(":
                if inside == "literal":
                    raise TemplateSyntaxError("a list or object in a template holds constants only")
                self.brackets.append("call" if after_value else "group")
            case "[":
                self.brackets.append("index" if after_value and inside != "literal" else "literal")
            case "{":
                self.brackets.append("literal")
            case ")" | "]" | "}":
                if self.brackets:
                    self.brackets.pop()
            case "," if inside in ("group", "index") or (not inside and not self._targets()):
                raise TemplateSyntaxError("tuples are not available in a template")
            case "*":
                raise TemplateSyntaxError(
                    "the operator * is not available; use the filter times: {{ price | times(2) }}"
                )
            case _:
                pass
        self.tokens.append((kind, text))

    def _targets(self) -> bool:
        """Before the `in` of a for: `{% for key, value in ...`."""
        return bool(self.tokens) and self.tokens[0][1] == "for" and ("name", "in") not in self.tokens

    def end(self) -> None:
        names = [text for _, text in self.tokens]
        if names[:1] == ["raw"]:
            raise TemplateSyntaxError("raw blocks are not available")
        for at, token in enumerate(self.tokens):
            if token == ("", "+") and not self._beside_a_number(at, names):
                raise TemplateSyntaxError("+ needs a number written beside it; use the filter plus, or ~ to join text")
            if token == ("name", "format") and names[at - 1 : at] == ["."]:
                # `{:9999999999}` pads before fuel is asked; the filter asks first.
                raise TemplateSyntaxError("the method .format() is not available; use ~ or the filter format")

    def _beside_a_number(self, at: int, names: list[str]) -> bool:
        left = at > 0 and self.tokens[at - 1][0] == "number" and names[at - 2 : at - 1] != ["."]
        right = at + 1 < len(names) and self.tokens[at + 1][0] == "number"
        return left or (right and (at + 2 >= len(names) or names[at + 2] not in ("|", ".", "[", "(")))


def check(source: str) -> None:
    """Refuses what could multiply lists outside the budgets. Reads the source exactly as the engine does, or refuses it."""
    if any(source.count(operator) > MAX_OPERATORS for operator in "~+*"):
        raise TemplateSyntaxError(f"a template has at most {MAX_OPERATORS} of each operator")
    if source.count("groupby") > MAX_GROUPBY:
        raise TemplateSyntaxError(f"a template has at most {MAX_GROUPBY} groupby")
    at = 0
    while (start := _OPEN.search(source, at)) is not None:
        at = start.end()
        if start.group() == "{#":
            at = source.find("#}", at) + 2
            if at < 2:
                return  # the engine refuses a comment that doesn't end
            continue
        closing, scan = "}}" if start.group() == "{{" else "%}", _Scan()
        if source[at : at + 1] in ("-", "+"):
            at += 1
        while (token := _TOKEN.match(source, at)) is not None:
            text = token.group()
            if token.lastgroup == "close" and text.endswith(closing):
                if "literal" in scan.brackets and closing == "}}":
                    raise TemplateSyntaxError("write a blank between the braces of an object and of the tag: } }}")
                at = token.end()
                break
            if text in ("'", '"'):
                raise TemplateSyntaxError("a string doesn't end")
            if token.lastgroup == "close":
                text = text[0]  # not this tag's end: two operators side by side
            at += len(text)
            if not text.isspace():
                scan.take(token.lastgroup if token.lastgroup not in (None, "close") else "", text)
        scan.end()
