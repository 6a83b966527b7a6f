"""Where an OpenAPI document says that its API is, and how calls to it are signed."""

from typing import Any
from urllib.parse import urljoin

from tools.header_names import header_fault
from tools.importers.documents import Document, RefFault
from tools.importers.frame import LeftOut
from tools.importers.wording import plain_text
from tools.json_schema import is_array, is_object
from tools.kinds.paths import base_url_fault
from tools.models import AuthConfig


def base_url_of(document: Document, where: str) -> str:
    """The base URL, its variables by their defaults, relative ones against `where` the document is; "" if there is none."""
    root = document.root
    if document.version != "2.0":
        return server_url(root.get("servers"), where) or server_url([{"url": "/"}], where)
    schemes: Any = root.get("schemes")
    schemes = schemes if is_array(schemes) else []
    host, path = root.get("host"), root.get("basePath")
    path = path if isinstance(path, str) else "/"
    scheme = "http" if "http" in schemes and "https" not in schemes else "https"
    return _usable(f"{scheme}://{host}/" if isinstance(host, str) else where, path)


def server_url(servers: Any, where: str) -> str:
    """The first usable one, https before http; "" where none is."""
    found: list[str] = []
    for server in servers if is_array(servers) else ():
        if not is_object(server) or not isinstance(url := server.get("url"), str):
            continue
        variables = server.get("variables")
        for name, variable in variables.items() if is_object(variables) else ():
            default = variable.get("default") if is_object(variable) else None
            url = url.replace("{" + name + "}", str(default) if default is not None else "")
        found.append(_usable(where, url))
    usable = [url for url in found if url]
    return next((u for u in usable if u.startswith("https:")), usable[0] if usable else "")


def _usable(where: str, url: str) -> str:
    """`url` as it stands in a document at `where`; "" where nothing can be called there."""
    bare = _joined(where, url).partition("#")[0].partition("?")[0]
    return bare.rstrip("/") if bare and base_url_fault(bare) is None else ""


def _joined(where: str, url: str) -> str:
    try:
        return urljoin(where, url)
    except ValueError:
        return ""


def auth_of(document: Document, where: str) -> tuple[AuthConfig | None, str, list[LeftOut]]:
    """(how calls are signed, what its secret is, the schemes that can't be used). The first usable one that is asked for."""
    root = document.root
    schemes: Any = (
        root.get("securityDefinitions")
        if document.version == "2.0"
        else _map(root.get("components")).get("securitySchemes")
    )
    chosen: AuthConfig | None = None
    secret = ""
    left: list[LeftOut] = []
    for name in sorted(_map(schemes), key=lambda n: n not in _asked_for(root)):
        try:
            scheme = document.object(schemes[name], f"the security scheme {name}")
            auth, words = _auth(scheme, where)
        except RefFault as e:
            auth, words = None, str(e)
        if auth is None:
            left.append(LeftOut(f"security {name}", words))
        elif chosen is None:
            chosen, secret = auth, words
        else:
            left.append(LeftOut(f"security {name}", f"one is enough: {chosen.type} is taken"))
    return chosen, secret, left


def _asked_for(root: dict[str, Any]) -> list[str]:
    security = root.get("security")
    return [name for row in security if is_object(row) for name in row] if is_array(security) else []


def _auth(scheme: dict[str, Any], where: str) -> tuple[AuthConfig | None, str]:
    """(auth, what the secret is) or (None, why not)."""
    kind, place = scheme.get("type"), scheme.get("in")
    if kind == "apiKey":
        name = str(scheme.get("name", ""))
        if place != "header":
            return None, f"a key in {place}: secrets go into headers only, since URLs are logged everywhere"
        if name.lower() == "cookie" or header_fault(name):
            return None, f"a key in the header {name[:60]}, which can't carry one"
        return AuthConfig(type="api_key_header", header_name=name), f"the value of the header {name}"
    if kind == "basic" or (kind == "http" and str(scheme.get("scheme")).lower() == "basic"):
        said = 'Basic authentication as a header: "Basic " and base64 of user:password'
        return AuthConfig(type="api_key_header", header_name="Authorization"), said
    if kind == "http" and str(scheme.get("scheme")).lower() == "bearer":
        return AuthConfig(type="bearer_token"), "the token"
    if kind == "oauth2":
        flows = _map(scheme.get("flows"))
        flow = flows.get("clientCredentials") or (scheme if scheme.get("flow") == "application" else None)
        if is_object(flow) and isinstance(url := flow.get("tokenUrl"), str):
            scopes = tuple(str(s) for s in _map(flow.get("scopes")))
            return (
                AuthConfig(type="oauth2_client_credentials", token_url=_joined(where, url), scopes=scopes or None),
                "the client secret; client_id must be given too",
            )
        said = ", ".join(flows) or str(scheme.get("flow", "no flow"))
        return None, f"oauth2 by {said}: a person must sign in there; give a token of your own as bearer_token"
    return None, plain_text(f"{kind} {scheme.get('scheme', '')}".strip(), 60) + ": not one of our auth types"


def _map(value: Any) -> dict[str, Any]:
    return value if is_object(value) else {}
