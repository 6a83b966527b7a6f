"""Secrets in AWS SSM Parameter Store as SecureStrings (the extra `integrations-mcp[aws]`).

What AWS limits is refused here first: names (rules A3), and 4 KB in the Standard tier, 8 KB in the Advanced one. A version is
the parameter's own version number; AWS can't remove one alone, so `remove` deletes the parameter when nothing of it stays.
IAM: ssm:GetParameter, ssm:PutParameter and ssm:DeleteParameter on `parameter/{prefix}/*` (rules A10).
"""

import asyncio
import functools
import re
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from tools.errors import Forbidden, InvalidRequest, Issue, SecretNotFound, SecretStoreUnavailable
from tools.secrets import Secret, path_fault, value_fault

STANDARD_BYTES = 4096
_HISTORY = 100
"""AWS keeps the newest 100 versions of a parameter."""
_AT_ONCE = 10
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SsmSettings:
    """`region` and `endpoint_url` empty: AWS's own configuration decides; `kms_key` empty: the account's key aws/ssm."""

    region: str = ""
    endpoint_url: str = ""
    kms_key: str = ""


class SsmSecretStore:
    """`tools.secrets.SecretStore` over a boto3 SSM client, which waits in threads of its own."""

    def __init__(self, client: Any, kms_key: str = "") -> None:
        self._client, self._kms_key = client, kms_key
        self._threads = anyio.CapacityLimiter(_AT_ONCE)

    async def aclose(self) -> None:
        """Closes the connections to AWS."""
        self._client.close()

    async def read(self, path: str, version: str | None = None) -> Secret:
        _check_path(path)
        if version is not None and not (version.isascii() and version.isdigit()):
            raise SecretNotFound(f"No secret is stored at {path} in this version: it was written to another store.")
        name = path if version is None else f"{path}:{version}"
        found = await self._parameter(path, name, decrypt=True)
        if found is None or version not in (None, str(found["Version"])):
            raise SecretNotFound(f"No secret is stored at {path}.")
        return Secret(value=found["Value"], version=str(found["Version"]))

    async def write(self, path: str, value: str) -> str:
        _check_path(path)
        if fault := value_fault(value):
            raise InvalidRequest([Issue(("value",), fault)])
        fields: dict[str, Any] = {"Name": path, "Value": value, "Type": "SecureString", "Overwrite": True}
        if self._kms_key:
            fields["KeyId"] = self._kms_key
        tier = "Standard" if len(value.encode()) <= STANDARD_BYTES else "Advanced"
        try:
            answer = await self._ask("put_parameter", **fields, Tier=tier)
        except _Refused as e:
            # A parameter that was Advanced once can't go back: AWS refuses the tier, not the value.
            if e.code != "ValidationException" or tier == "Advanced":
                raise _unavailable(e) from None
            try:
                answer = await self._ask("put_parameter", **fields, Tier="Advanced")
            except _Refused as again:
                raise _unavailable(again) from None
        return str(answer["Version"])

    async def versions(self, path: str) -> dict[str, datetime]:
        """AWS tells the moment of the newest only (without a further permission): the older ones are said to be as young."""
        _check_path(path)
        found = await self._parameter(path, path, decrypt=False)
        if found is None:
            return {}
        newest, at = int(found["Version"]), found["LastModifiedDate"].astimezone(UTC)
        return {str(n): at for n in range(max(1, newest - _HISTORY + 1), newest + 1)}

    async def remove(self, path: str, versions: Collection[str]) -> None:
        """Deletes the parameter if these are all its versions; while one of them stays, nothing can be removed."""
        kept = await self.versions(path)
        if not kept or not set(kept) <= set(versions):
            return
        try:
            await self._ask("delete_parameter", Name=path)
        except _Refused as e:
            if e.code != "ParameterNotFound":
                raise _unavailable(e) from None

    async def paths(self, prefix: str) -> list[str]:
        raise Forbidden("Parameter Store isn't listed: the gateway asks AWS only for names that it knows (rules A10).")

    async def _parameter(self, path: str, name: str, *, decrypt: bool) -> dict[str, Any] | None:
        """None where there is none. What comes back must be what was asked for, and encrypted at rest (rules A3)."""
        try:
            answer = await self._ask("get_parameter", Name=name, WithDecryption=decrypt)
        except _Refused as e:
            if e.code in ("ParameterNotFound", "ParameterVersionNotFound"):
                return None
            raise _unavailable(e) from None
        found: dict[str, Any] = answer["Parameter"]
        if found["Name"] != path:
            raise SecretStoreUnavailable(f"Parameter Store answered with another parameter than {path}.")
        if found["Type"] != "SecureString":
            raise SecretStoreUnavailable(
                f"The parameter {path} is a {found['Type']}, not a SecureString: store it again."
            )
        return found

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        call = functools.partial(_told, functools.partial(getattr(self._client, operation), **fields))
        if operation == "get_parameter":
            async with self._threads:
                return await _in_daemon(call)
        return await anyio.to_thread.run_sync(call, limiter=self._threads)


async def _in_daemon(call: Callable[[], _T]) -> _T:
    """The result of a call in a thread that a process which ends doesn't wait for: AWS may answer in 20 seconds, or never.

    Writes aren't made so: nobody would know that they were done.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Future[_T]()

    def told(set_it: Callable[[Any], None], value: Any) -> None:
        if not done.done():  # who asked may have left
            set_it(value)

    def run() -> None:
        try:
            set_it, value = done.set_result, call()
        except Exception as e:  # noqa: BLE001 - raised where it is waited for
            set_it, value = done.set_exception, e
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(told, set_it, value)

    threading.Thread(target=run, daemon=True, name="parameter store").start()
    return await done


class _Refused(Exception):
    """AWS answered with an error; `code` is its name for it, `permission` what was needed for what was asked."""

    def __init__(self, code: str, permission: str) -> None:
        super().__init__(code)
        self.code, self.permission = code, permission


def _told(call: Callable[[], _T]) -> _T:
    """botocore's errors as ours; its texts can hold ARNs, so only the code and the permission's name go on."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return call()
    except ClientError as e:
        response: Any = e.response
        error: Any = response.get("Error", {})
        named = _ACTION.search(str(error.get("Message", "")))
        operation = str(e.operation_name)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - botocore has no types
        permission = named[1] if named else _NEEDED.get(operation, f"ssm:{operation}")
        raise _Refused(str(error.get("Code", "unknown")), permission) from None
    except BotoCoreError as e:
        raise SecretStoreUnavailable(f"AWS Parameter Store can't be reached ({type(e).__name__}).") from None


_ACTION = re.compile(r"not authorized to perform: ((?:ssm|kms):[A-Za-z]{1,64})\b")
_NEEDED = {
    "GetParameter": "ssm:GetParameter (or kms:Decrypt for its key)",
    "PutParameter": "ssm:PutParameter (or kms:Encrypt and kms:GenerateDataKey for the key)",
}
"""Where AWS doesn't name it: Parameter Store uses the KMS key in the gateway's name."""
_ADVICE = {
    "AccessDeniedException": "the gateway's role lacks {permission}: see the IAM policy in docs/secret-stores.md",
    "ThrottlingException": "AWS asks us to slow down",
    "TooManyUpdates": "it is being changed too often at the moment",
    "InvalidKeyId": "the KMS key of INTEGRATIONS_MCP_SSM_KMS_KEY can't be used",
    "ExpiredTokenException": "the gateway's AWS credentials have expired",
    "UnrecognizedClientException": "the gateway's AWS credentials are not valid",
}


def _unavailable(refused: _Refused) -> SecretStoreUnavailable:
    why = _ADVICE.get(refused.code, "").format(permission=refused.permission)
    return SecretStoreUnavailable(f"AWS Parameter Store refused ({refused.code})" + (f": {why}." if why else "."))


def _check_path(path: str) -> None:
    if fault := path_fault(path):
        raise SecretNotFound(f"This can't be a secret's path: {fault}.")


def open_ssm(settings: SsmSettings) -> SsmSecretStore:
    """A store with AWS's usual credentials (environment, profile, role). Raises SecretStoreUnavailable without boto3 or region."""
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise SecretStoreUnavailable(
            "secret_store ssm needs boto3: install integrations-mcp[aws] in place of integrations-mcp."
        ) from None
    # "standard" retries throttling and lost connections with jittered exponential backoff.
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        max_pool_connections=_AT_ONCE,
        retries={"mode": "standard", "total_max_attempts": 4},
    )
    try:
        session: Any = boto3.Session()  # boto3 has no types
        client = session.client(
            "ssm",
            region_name=settings.region or None,
            endpoint_url=settings.endpoint_url or None,
            config=config,
        )
    except BotoCoreError as e:
        raise SecretStoreUnavailable(
            f"AWS Parameter Store can't be used ({type(e).__name__}): set INTEGRATIONS_MCP_SSM_REGION."
        ) from None
    return SsmSecretStore(client, settings.kms_key)
