"""The words of a curl line: one command, its options taken apart, anything that can't be sent refused. Pure."""

import re
import shlex
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from tools.importers.frame import LeftOut, SourceFault

_NO_VALUE = frozenset(
    [
        "-s",
        "--silent",
        "-S",
        "--show-error",
        "-L",
        "--location",
        "-i",
        "--include",
        "-v",
        "--verbose",
        "-f",
        "--fail",
        "-g",
        "--globoff",
        "--compressed",
        "-k",
        "--insecure",
        "-N",
        "--no-buffer",
        "-#",
        "--progress-bar",
        "--http1.1",
        "--http2",
        "-4",
        "-6",
        "--fail-with-body",
        "--location-trusted",
        "-q",
    ]
)
_WITH_VALUE = frozenset(
    [
        "-o",
        "--output",
        "-m",
        "--max-time",
        "--connect-timeout",
        "-e",
        "--referer",
        "--retry",
        "--retry-delay",
        "--cacert",
        "--resolve",
        "-w",
        "--write-out",
        "-x",
        "--proxy",
        "--retry-max-time",
        "--limit-rate",
        "--interface",
    ]
)
_SHORT = {
    "-X": "--request",
    "-H": "--header",
    "-d": "--data",
    "-F": "--form",
    "-u": "--user",
    "-A": "--user-agent",
    "-b": "--cookie",
    "-G": "--get",
    "-I": "--head",
    "-T": "--upload-file",
    "-E": "--cert",
}
_FLAGS = frozenset(("--get", "--head"))
_TAKEN = frozenset(
    [
        "--request",
        "--header",
        "--data",
        "--data-raw",
        "--data-ascii",
        "--data-binary",
        "--data-urlencode",
        "--json",
        "--form",
        "--form-string",
        "--user",
        "--user-agent",
        "--cookie",
        "--url",
        "--upload-file",
        "--cert",
        "--key",
        "--get",
        "--head",
        "--oauth2-bearer",
    ]
)


@dataclass(slots=True)
class CurlLine:
    """One command as it was written."""

    method: str = ""
    url: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    data: list[str] = field(default_factory=list[str])
    user: str | None = None
    json: bool = False
    get: bool = False
    left: list[LeftOut] = field(default_factory=list[LeftOut])


def parse_curl(text: str) -> CurlLine:
    """Raises SourceFault, whose message never holds a value of the line."""
    clean = re.sub(r"\\\r?\n|\^\r?\n", " ", text.strip())
    try:
        words = shlex.split(clean)
    except ValueError as e:
        raise SourceFault(f"the line's quotes don't fit: {str(e).lower()}") from None
    if words[:1] == ["$"]:
        words = words[1:]
    if not words or words[0].rpartition("/")[2] not in ("curl", "curl.exe"):
        raise SourceFault("the line doesn't begin with curl")
    if any(w in ("|", ";", "&&", "||", ">", "<", "&") for w in words):
        raise SourceFault("one curl command is read: no pipes, redirections or further commands")
    line = CurlLine()
    rest = iter(_options(words[1:]))
    for option, value in rest:
        _take(line, option, value)
    if not line.url:
        raise SourceFault("the line has no URL")
    return line


def _options(words: list[str]) -> list[tuple[str, str]]:
    """(long option, value); an option "" is the URL. Joined forms (-XPOST, --url=..., -sSL) are taken apart."""
    found: list[tuple[str, str]] = []
    i = 0
    while i < len(words):
        word = words[i]
        i += 1
        if not word.startswith("-") or word == "-":
            found.append(("", word))
            continue
        option, value = word, None
        if word.startswith("--"):
            option, equals, joined = word.partition("=")
            value = joined if equals else None
        elif len(word) > 2:
            option = word[:2]
            if option in _NO_VALUE or option in ("-G", "-I"):  # several in one word: -sSL
                words.insert(i, "-" + word[2:])
            else:
                value = word[2:]
        option = _SHORT.get(option, option)
        if option in _NO_VALUE or option in _FLAGS:
            found.append((option, ""))
            continue
        if option not in _TAKEN and option not in _WITH_VALUE:
            raise SourceFault(f"the option {option[:40]} is not known here")
        if value is None:
            if i >= len(words):
                raise SourceFault(f"the option {option} has no value")
            value = words[i]
            i += 1
        found.append((option, value))
    return found


def _take(line: CurlLine, option: str, value: str) -> None:
    match option:
        case "" | "--url":
            if line.url:
                raise SourceFault("the line has two URLs: one command is one endpoint")
            line.url = value
        case "--request":
            line.method = value.upper()
        case "--header":
            name, colon, text = value.partition(":")
            if colon and text.strip():
                line.headers.append((name.strip(), text.strip()))
        case "--data" | "--data-ascii" | "--data-binary" | "--data-raw" | "--json":
            if option != "--data-raw" and value.startswith("@"):
                raise SourceFault("the line's data come from a file: put them into the line")
            line.data.append(value)
            line.json = line.json or option == "--json"
        case "--data-urlencode":
            line.data.append(_urlencoded(value))
        case "--form" | "--form-string":
            raise SourceFault("multipart forms (-F) can't be sent: only JSON and --data")
        case "--upload-file":
            raise SourceFault("files (-T) can't be sent: only JSON and --data")
        case "--cert" | "--key":
            raise SourceFault("client certificates are not one of our auth types")
        case "--user":
            line.user = value
        case "--oauth2-bearer":
            line.headers.append(("Authorization", f"Bearer {value}"))
        case "--user-agent":
            pass
        case "--cookie":
            line.left.append(LeftOut("cookie", "no cookies are kept or sent"))
        case "--get":
            line.get = True
        case "--head":
            raise SourceFault("HEAD (-I) is not a method of tools")
        case "-k" | "--insecure":
            line.left.append(LeftOut("--insecure", "certificates are always checked"))
        case "-x" | "--proxy" | "--resolve" | "--interface":
            line.left.append(LeftOut(option, "how the upstream is reached is the operator's setting"))
        case _:
            pass


def _urlencoded(value: str) -> str:
    name, equals, text = value.partition("=")
    if "@" in name or (not equals and value.startswith("@")):
        raise SourceFault("the line's data come from a file: put them into the line")
    return f"{name}={quote_plus(text)}" if equals and name else quote_plus(text if equals else value)
