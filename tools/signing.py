"""Signs the requests of one call, late, once per attempt, and remembers what must be masked because of it.

The last check before a secret leaves: it may only go to an origin that it is bound to (rules A1).
"""

from collections.abc import Callable, Mapping

from tools.credentials import Credential
from tools.credentials.authorization import Authorization, masks_of
from tools.credentials.reader import SecretReader
from tools.errors import Misconfigured
from tools.kinds.paths import origin_of
from tools.models import Binding
from tools.tracing import Headers
from tools.upstream import Answer, Request


class CallSigner:
    """`upstream.Signer` for one call. `masks` grows with every secret and token that was used."""

    __slots__ = ("_bindings", "_credential", "_headers", "_paths", "_reader", "_traced", "masks", "used")

    def __init__(
        self,
        credential: Credential | None,
        credential_paths: tuple[str, ...],
        secret_headers: tuple[tuple[str, str], ...],
        bindings: Mapping[str, Binding],
        reader: SecretReader,
        traced: Callable[[], Headers] | None = None,
    ) -> None:
        """`traced` gives the headers that carry a trace on."""
        self._credential = credential
        self._paths = credential_paths
        self._headers = secret_headers
        self._bindings = bindings
        self._reader = reader
        self._traced = traced
        self.masks: tuple[str, ...] = ()
        self.used: Authorization | None = None

    async def sign(self, request: Request) -> tuple[tuple[str, str], ...]:
        """Headers to add; an auth header replaces a static one of its name ("the auth header wins")."""
        origin = origin_of(request.url)
        headers: list[tuple[str, str]] = [] if self._traced is None else [*self._traced()]
        for name, path in self._headers:
            self._check(path, origin)
            secret = await self._reader.read(path, self._bindings[path].version)
            self.masks += masks_of([secret.value])
            headers.append((name, secret.value))
        if self._credential is not None:
            for path in self._paths:
                self._check(path, origin)
            used = await self._credential.authorize()
            if used.may_go_to is not None and not used.may_go_to(origin):
                raise Misconfigured(
                    f"a token of this gateway's own identity isn't for {origin}",
                    advice="use a base_url under googleapis.com, or have the operator add the origin to his list",
                )
            if used is not self.used:
                self.used = used
                self.masks += used.masks
            headers = [(n, v) for n, v in headers if n.lower() != used.header.lower()]
            headers += ((used.header, used.value), *used.more)
        return tuple(headers)

    def way(self) -> dict[str, object] | None:
        """The way to the credential for the auth X-ray, also where it ended in a failure; None without a credential."""
        if self.used is not None:
            return self.used.explain
        return self._credential.explain() if self._credential is not None else None

    async def refused(self, answer: Answer) -> bool:
        """Whether a 401 is worth one more try with a newer secret or token (rules A5, B7)."""
        if self._credential is None or self.used is None:
            return False
        return await self._credential.rejected(self.used, answer)

    def _check(self, path: str, origin: str) -> None:
        binding = self._bindings.get(path)
        if binding is None:
            raise Misconfigured(f"the secret path {path} isn't one that this integration may use")
        if origin not in binding.origins:
            raise Misconfigured(
                f"the secret under {path} was given for other origins than {origin}",
                advice="give the value again in an update, or let an owner or admin make the change",
            )
