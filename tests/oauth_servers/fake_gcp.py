"""Google's two endpoints as far as workload identity federation needs them; checks what Google checks and refuses what it refuses.

No such server exists to install. RFC 8693 parameters, audience, the subject token's signature, algorithm, iss, aud, exp (at
most 24 h) and its attribute condition at STS, or the signature of an AWS request by the letter of SigV4; the bearer token, scope
and lifetime at generateAccessToken.
"""

import hashlib
import hmac
import json
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import flask
from joserfc import jwk, jwt
from joserfc.errors import JoseError

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
AWS_TYPE = "urn:ietf:params:aws:token-type:aws4_request"
SUBJECT_TYPES = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


class FakeGoogle:
    """`pool` is the provider's audience, `issuer` and `jwks` what it trusts, `accounts` those that may be impersonated.

    `aws` are the secret access keys by their id. `sts` and `iam` are the requests as they came.
    """

    def __init__(self, pool: str, issuer: str, jwks: dict[str, Any], accounts: frozenset[str]) -> None:
        self.pool, self.issuer, self.jwks, self.accounts = pool, issuer, jwks, accounts
        self.aws: dict[str, str] = {}
        self.sts: list[dict[str, str]] = []
        self.iam: list[dict[str, Any]] = []
        self.federated: dict[str, list[str]] = {}
        self.app = flask.Flask("fake_gcp")
        self.app.add_url_rule("/v1/token", "sts", self._exchange, methods=["POST"])
        path = "/v1/projects/-/serviceAccounts/<account>:generateAccessToken"
        self.app.add_url_rule(path, "iam", self._generate, methods=["POST"])

    def _exchange(self) -> Any:
        form = dict(flask.request.form)
        self.sts.append(form)
        if flask.request.mimetype != "application/x-www-form-urlencoded":
            return _oauth("invalid_request", "The request must be form encoded.")
        if form.get("grant_type") != EXCHANGE or form.get("requested_token_type") != ACCESS:
            return _oauth("invalid_request", "Unsupported grant or requested token type.")
        if form.get("subject_token_type") not in (*SUBJECT_TYPES, AWS_TYPE):
            return _oauth("invalid_request", "Invalid subject token type.")
        if form.get("audience") != self.pool:
            return _oauth("invalid_request", "Invalid value for audience.")
        if not form.get("scope"):
            return _oauth("invalid_request", "Missing scope.")
        check = self._aws_fault if form["subject_token_type"] == AWS_TYPE else self._subject_fault
        if fault := check(form.get("subject_token", "")):
            return _oauth("invalid_grant", fault)
        token = f"ya29.federated-{len(self.federated)}"
        self.federated[token] = form["scope"].split()
        return {"access_token": token, "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": 3599}

    def _subject_fault(self, token: str) -> str | None:
        try:
            claims = jwt.decode(token, jwk.KeySet.import_key_set(self.jwks), algorithms=["RS256", "ES256"]).claims
        except (JoseError, ValueError) as e:
            return f"Error verifying the signature of the ID token: {e}"
        audiences = claims["aud"] if isinstance(claims.get("aud"), list) else [claims.get("aud")]
        now = time.time()
        if claims.get("iss") != self.issuer:
            return "The issuer in ID Token does not match the expected ones."
        if f"https:{self.pool}" not in audiences and self.pool not in audiences:
            return "The audience in ID Token does not match the expected audience."
        if not claims.get("sub") or not claims.get("iat") or claims.get("exp", 0) < now:
            return "The ID Token is expired or lacks sub or iat."
        if claims["exp"] - claims["iat"] > 86400 or claims["iat"] > now + 60:
            return "The ID Token's lifetime is too long, or it is issued in the future."
        return None

    def _aws_fault(self, token: str) -> str | None:
        """What AWS would say of the request that Google sends there."""
        try:
            asked = json.loads(unquote(token))
            headers = {h["key"].lower(): h["value"] for h in asked["headers"]}
            url, method = asked["url"], asked["method"]
            pattern = r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/[^/]+/sts/aws4_request), SignedHeaders=([^,]+), Signature=(\w+)"
            signed = re.fullmatch(pattern, headers["authorization"])
            assert signed is not None
            key_id, scope, names, signature = signed.groups()
            assert {"host", "x-amz-date", "x-goog-cloud-target-resource"} <= set(names.split(";"))
            assert re.fullmatch(
                r"https://sts\.[a-z0-9-]+\.amazonaws\.com\?Action=GetCallerIdentity&Version=2011-06-15", url
            )
            assert method == "POST"
            assert headers["host"] == urlsplit(url).netloc
        except (ValueError, KeyError, TypeError, AssertionError) as e:
            return f"Error code 400: the AWS request can't be used: {type(e).__name__}"
        if headers["x-goog-cloud-target-resource"] not in (self.pool, f"https:{self.pool}"):
            return "The x-goog-cloud-target-resource header does not match the audience."
        lines = "".join(f"{name}:{headers[name]}\n" for name in names.split(";"))
        canonical = "\n".join((method, "/", urlsplit(url).query, lines, names, hashlib.sha256(b"").hexdigest()))
        date, region, *_ = scope.split("/")
        to_sign = "\n".join(
            ("AWS4-HMAC-SHA256", headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest())
        )
        key = b"AWS4" + self.aws.get(key_id, "").encode()
        for part in (date, region, "sts", "aws4_request", to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        if key_id not in self.aws or not hmac.compare_digest(key.hex(), signature):
            return f"Received invalid AWS response with HTTP code 403: SignatureDoesNotMatch {headers.get('x-amz-security-token')}"
        return None

    def _generate(self, account: str) -> Any:
        body = flask.request.get_json()
        self.iam.append({"account": account, "body": body})
        scopes = self.federated.get((flask.request.headers.get("Authorization") or "").removeprefix("Bearer "))
        if scopes is None:
            return _google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if account not in self.accounts or CLOUD_PLATFORM not in scopes:
            return _google(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied.")
        seconds = int(str(body.get("lifetime", "3600s")).removesuffix("s"))
        if not body.get("scope") or not 0 < seconds <= 43200:
            return _google(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        return {"accessToken": f"ya29.account-{len(self.iam)}", "expireTime": ends}


def _oauth(error: str, description: str) -> Any:
    return {"error": error, "error_description": description}, 400


def _google(code: int, status: str, message: str) -> Any:
    return {"error": {"code": code, "status": status, "message": message}}, code
