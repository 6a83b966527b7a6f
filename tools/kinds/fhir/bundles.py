"""A search's answer: a Bundle as matches, included resources, warnings, links (rules G3, G8). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from tools.cutting import write
from tools.json_values import is_array, is_object
from tools.kinds.fhir.outcomes import is_outcome, issues_of
from tools.paths import Mask
from tools.shaping import Shaped, Shaper, shape

NARROWING_CONTROLS = frozenset(
    {"_id", "_lastUpdated", "_tag", "_profile", "_security", "_text", "_content", "_list", "_has", "_filter", "_source"}
)
"""Parameters with an underscore that choose records; the others say how they are shown."""


@dataclass(frozen=True, slots=True)
class Page:
    """`matches` and `included` are entries; `total` is None where the server doesn't tell it."""

    matches: tuple[dict[str, Any], ...]
    included: tuple[dict[str, Any], ...]
    warnings: tuple[str, ...]
    total: int | None
    next: str | None
    self_link: str | None


def is_bundle(value: Any, *types: str) -> bool:
    return is_object(value) and value.get("resourceType") == "Bundle" and (not types or value.get("type") in types)


def entries_of(bundle: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = bundle.get("entry")
    return [entry for entry in found if is_object(entry)] if is_array(found) else []


def read_page(bundle: Mapping[str, Any]) -> Page:
    """Whatever is malformed is passed over."""
    matches: list[dict[str, Any]] = []
    included: dict[object, dict[str, Any]] = {}
    warnings: list[str] = []
    for entry in entries_of(bundle):
        resource, search = entry.get("resource"), entry.get("search")
        mode = search.get("mode") if is_object(search) else None
        if mode == "outcome" or is_outcome(resource):
            warnings += issues_of(resource, ("fatal", "error", "warning"))
        elif mode == "include" and is_object(resource):
            included.setdefault((str(resource.get("resourceType")), str(resource.get("id", len(included)))), entry)
        elif is_object(resource):
            matches.append(entry)
    total = bundle.get("total")
    return Page(
        tuple(matches),
        tuple(included.values()),
        tuple(dict.fromkeys(warnings)),
        total if isinstance(total, int) and not isinstance(total, bool) else None,
        _link(bundle, "next"),
        _link(bundle, "self"),
    )


def _link(bundle: Mapping[str, Any], relation: str) -> str | None:
    links = bundle.get("link")
    for link in links if is_array(links) else []:
        if is_object(link) and link.get("relation") == relation and isinstance(url := link.get("url"), str) and url:
            return url
    return None


def joined(pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pages as one Bundle: the first one's fields, all entries, the last one's links."""
    if len(pages) == 1:
        return pages[0]
    entries = [entry for page in pages for entry in entries_of(page)]
    return {**pages[0], "link": pages[-1].get("link", []), "entry": entries}


def ignored(self_link: str | None, sent: Sequence[str], warnings: Sequence[str]) -> list[str]:
    """Names of the narrowing parameters that the server didn't use: absent from its self link, or named in a warning."""
    used: set[str] | None = None
    if self_link is not None and (query := self_link.partition("#")[0].partition("?")[2]):
        used = {name.partition(":")[0] for name, _ in parse_qsl(query, keep_blank_values=True)}
        if not used & {name.partition(":")[0] for name in sent} and any(n.startswith("_get") for n in used):
            used = None  # a handle of the server's own: it says nothing of parameters
    found: list[str] = []
    for name in dict.fromkeys(sent):
        base = name.partition(":")[0]
        if name.startswith("_") and base not in NARROWING_CONTROLS:
            continue
        if (used is not None and base not in used) or any(_names(text, name) for text in warnings):
            found.append(name)
    return found


def _names(text: str, parameter: str) -> bool:
    marked = "".join(c if c.isalnum() or c in "_-:." else " " for c in text)
    return parameter in (word.strip(".:") for word in marked.split())


def shape_fhir(shaper: Shaper, args: Mapping[str, Any], raw: Any) -> Shaped:
    """As `shape`; where only a filter, or nothing, shapes a search's Bundle, the result is the list of its resources.

    A generated narrative says nothing that the fields don't: it is left out unless a filter names it.
    """
    shaped = shape(shaper, args, raw)
    if shaper.mapping is not None or shaper.key is not None or shaper.template is not None:
        return shaped
    if is_bundle(raw, "searchset"):
        value = _resources(read_page(raw), shaper.filter)
    elif shaper.filter is None and is_object(raw) and "resourceType" in raw:
        value = _plain(raw)
    else:
        return shaped
    return Shaped(raw, shaped.after_filter, shaped.after_mapping, value, write(value))


def _resources(page: Page, mask: Mask | None) -> Any:
    matches = [_kept(entry, mask) for entry in page.matches]
    if not page.included:
        return matches
    return {"resources": matches, "included": [_kept(entry, mask) for entry in page.included]}


def _kept(entry: dict[str, Any], mask: Mask | None) -> Any:
    if mask is None:
        return _plain(entry["resource"])
    entries = entries_of(mask.keep({"entry": [entry]}))
    return entries[0].get("resource", {}) if entries else {}


def _plain(resource: dict[str, Any]) -> dict[str, Any]:
    text, contained = resource.get("text"), resource.get("contained")
    if is_object(text) and text.get("status") == "generated" and "div" in text:
        resource = {name: value for name, value in resource.items() if name != "text"}
    if is_array(contained):
        resource = {**resource, "contained": [_plain(inner) if is_object(inner) else inner for inner in contained]}
    return resource
