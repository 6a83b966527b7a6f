"""The noun "client authentication": how a client id and secret go to the token endpoint (RFC 6749 2.3.1, rules B1)."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote_plus, urlencode

Form = list[tuple[str, str]]
Method = Literal["basic", "post"]


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """`method` None finds out by trying."""

    client_id: str
    secret: str = field(repr=False)
    method: Method | None = None

    def headers(self, method: Method) -> tuple[tuple[str, str], ...]:
        """Basic over the form-urlencoded id and secret: a colon, blank or umlaut in either would else be read differently."""
        if method == "post":
            return ()
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}"
        return (("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"),)

    def fields(self, method: Method) -> Form:
        return [("client_id", self.client_id), ("client_secret", self.secret)] if method == "post" else []

    def hidden(self) -> tuple[str, ...]:
        """What a server could echo: the secret, its encoded form (also within base64), and the header's value whole."""
        pair = (value.removeprefix("Basic ") for _, value in self.headers("basic"))
        return (self.secret, quote_plus(self.secret), *pair)


def encoded(form: Sequence[tuple[str, str]]) -> bytes:
    """application/x-www-form-urlencoded, UTF-8 (RFC 6749 appendix B)."""
    return urlencode(form).encode()
