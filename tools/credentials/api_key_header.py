"""`api_key_header`: the secret goes out verbatim in a header of the operator's choice (default `X-API-Key`)."""

from tools.credentials import Credential
from tools.credentials.authorization import AuthFault, Authorization, masks_of
from tools.credentials.parts import CredentialParts
from tools.credentials.reader import SecretReader
from tools.errors import Misconfigured
from tools.header_names import header_fault
from tools.models import AuthConfig
from tools.upstream import Answer

DEFAULT_HEADER = "X-API-Key"


def header_value_fault(value: str) -> str | None:
    """Why `value` can't be a header's value; None when it can: printable ASCII, no CR or LF (RFC 9110 5.5)."""
    if all(" " <= c <= "~" for c in value):
        return None
    return "has characters that can't go into a header (line breaks, controls or non-ASCII)"


def faults(auth: AuthConfig) -> list[AuthFault]:
    found: list[AuthFault] = []
    if auth.ssm_param_path is None:
        found.append(AuthFault("ssm_param_path", "api_key_header needs the secret: ssm_param_path or api_key_value"))
    name = auth.header_name or DEFAULT_HEADER
    if fault := header_fault(name):
        found.append(AuthFault("header_name", fault))
    elif name.lower() == "content-type":
        found.append(AuthFault("header_name", "Content-Type can't carry a key"))
    return found


def secret_paths(auth: AuthConfig) -> tuple[str, ...]:
    return (auth.ssm_param_path,) if auth.ssm_param_path else ()


def token_urls(auth: AuthConfig) -> tuple[str, ...]:
    return ()


def make(auth: AuthConfig, parts: CredentialParts) -> Credential:
    path = auth.ssm_param_path or ""
    return HeaderSecret(parts.reader, path, parts.versions.get(path), auth.header_name or DEFAULT_HEADER)


class HeaderSecret:
    """A stored secret as a header, also for `bearer_token` (prefix "Bearer ")."""

    def __init__(self, reader: SecretReader, path: str, version: str | None, header: str, prefix: str = "") -> None:
        self._reader, self._path, self._version = reader, path, version
        self._header, self._prefix = header, prefix
        self._made: Authorization | None = None

    async def authorize(self) -> Authorization:
        secret = await self._reader.read(self._path, self._version)
        made = self._made
        if made is None or made.version != secret.version:
            if fault := header_value_fault(secret.value):
                raise Misconfigured(f"the secret under {self._path} {fault}", advice="store it again without them")
            made = self._made = Authorization(
                header=self._header,
                value=self._prefix + secret.value,
                version=secret.version,
                source="secret",
                masks=masks_of([secret.value]),
                explain=self.explain(),
            )
        return made

    async def rejected(self, used: Authorization, answer: Answer) -> bool:
        if self._version is not None:
            return False
        return await self._reader.reread(self._path, used.version) is not None

    def explain(self) -> dict[str, object]:
        return {"secret_path": self._path, "header": self._header}
