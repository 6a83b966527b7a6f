"""What a source says to the model rather than to people: told with each operation, or kept out; hidden characters go. Pure."""

from dataclasses import replace

from tools.hidden_text import visible, visible_texts
from tools.importers.frame import Candidate, LeftOut, Source
from tools.suspicious_text import suspicions_of_tool


def scanned(source: Source, *, withhold: bool) -> Source:
    """Suspicious operations with a note each; with `withhold` they are left out instead, with the reason."""
    kept: list[Candidate] = []
    left = list(source.left_out)
    for candidate in source.candidates:
        e = candidate.endpoint
        found = suspicions_of_tool({"description": e.description, "inputSchema": e.input_schema})
        if found and withhold:
            left.append(LeftOut(candidate.key, f"its text is suspicious: {'; '.join(found)[:300]}"))
        else:
            shown = {"description": visible(e.description), "input_schema": visible_texts(e.input_schema)}
            notes = (*candidate.notes, *(f"suspicious: {what}" for what in found))
            kept.append(replace(candidate, endpoint=e.model_copy(update=shown), notes=notes))
    return replace(source, title=visible(source.title), candidates=tuple(kept), left_out=tuple(left))
