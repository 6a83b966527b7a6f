"""What this process is at AWS and Kubernetes, for Google's token exchange (rules E1). Asked only for whom the operator lists.

Where the credentials come from is the operator's: AWS's own chain (environment, profile, web identity, ECS, IMDSv2), a file that
Kubernetes keeps up to date. Nothing of an integration reaches any of it but the audience, which is signed.
"""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import anyio.to_thread

from tools.credentials.own_identity import SubjectToken
from tools.errors import CredentialUnavailable, Misconfigured

_MAX_TOKEN_BYTES = 16 * 1024
_TARGET = "x-goog-cloud-target-resource"


class ProcessIdentity:
    """`tools.credentials.own_identity.IdentitySource` of this process."""

    def __init__(self, token_file: Path | None = None) -> None:
        self._token_file = token_file
        self._session: Any = None
        self._lock = anyio.Lock()

    async def aws(self, audience: str) -> SubjectToken:
        """The request as Google wants it (cloud.google.com/iam/docs/workload-identity-federation-with-other-clouds). Beyond
        what google-auth does the audience is signed too, so that who sees one can't show it to another provider.
        """
        async with self._lock:  # the chain can ask AWS's metadata service: once, not once per mint that waits
            return await anyio.to_thread.run_sync(self._signed, audience, abandon_on_cancel=True)

    async def kubernetes(self) -> SubjectToken:
        if self._token_file is None:
            raise Misconfigured(
                "this gateway has no Kubernetes identity",
                advice="the operator sets INTEGRATIONS_MCP_GCP_KUBERNETES_TOKEN_FILE to a projected service-account token",
            )
        try:
            # Read for each exchange: Kubernetes puts a fresh one there well before the old one ends.
            async with await anyio.open_file(self._token_file, "rb") as file:
                read = await file.read(_MAX_TOKEN_BYTES + 1)
        except OSError as e:
            raise CredentialUnavailable(
                f"the file of INTEGRATIONS_MCP_GCP_KUBERNETES_TOKEN_FILE can't be read ({type(e).__name__})"
            ) from None
        token = read.decode("ascii", "replace").strip()
        if len(read) > _MAX_TOKEN_BYTES or token.count(".") != 2 or not token.isascii() or len(token.split()) != 1:
            raise Misconfigured("the file of INTEGRATIONS_MCP_GCP_KUBERNETES_TOKEN_FILE doesn't hold a JWT")
        return SubjectToken(token)

    def _signed(self, audience: str) -> SubjectToken:
        try:
            from botocore.auth import SigV4Auth
            from botocore.awsrequest import AWSRequest
            from botocore.exceptions import BotoCoreError
            from botocore.session import Session
        except ImportError:
            raise Misconfigured(
                "the AWS identity needs botocore",
                advice="the operator installs integrations-mcp[aws] in place of integrations-mcp",
            ) from None
        try:
            if self._session is None:
                session: Any = Session()  # botocore has no types
                session.set_config_variable("ec2_metadata_v1_disabled", True)
                self._session = session
            region = os.environ.get("AWS_REGION") or self._session.get_config_variable("region")
            found = self._session.get_credentials()
            frozen = found.get_frozen_credentials() if found is not None else None
        except BotoCoreError as e:
            raise CredentialUnavailable(f"this process's AWS credentials can't be read ({type(e).__name__})") from None
        if not region:
            raise Misconfigured("this process's AWS region isn't known", advice="the operator sets AWS_REGION")
        if frozen is None:
            raise Misconfigured(
                "this process has no AWS credentials",
                advice="the operator gives it a role, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        url = f"https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
        request = AWSRequest("POST", url, headers={"host": f"sts.{region}.amazonaws.com", _TARGET: audience})
        signer: Any = SigV4Auth(frozen, "sts", region)
        signer.add_auth(request)
        headers = [{"key": _spelled(name), "value": str(value)} for name, value in request.headers.items()]
        # No blanks and sorted keys, then percent-encoded: byte for byte what google-auth sends.
        text = json.dumps({"url": url, "method": "POST", "headers": headers}, separators=(",", ":"), sort_keys=True)
        hidden = [request.headers["Authorization"].rpartition("=")[2], *([frozen.token] if frozen.token else [])]
        return SubjectToken(quote(text), tuple(hidden))


def _spelled(name: str) -> str:
    return name if name == "Authorization" else name.lower()
