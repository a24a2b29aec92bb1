"""Presigned URLs: AWS Signature Version 4 in the query string.

boto3 makes them too, but through layers that are too slow for uploads of thousands of files.
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Signer:
    """Signs URLs for one bucket, whose URL is `base`, without a final slash. Keys that expire come with a `token`."""

    base: str
    region: str
    access_key: str
    secret_key: str
    token: str | None = None

    def url(
        self,
        method: str,
        key: str,
        expires: int,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        now: datetime | None = None,
    ) -> str:
        """Return the URL that lets anyone make this request for `expires` seconds. `headers` must be sent unchanged."""
        when = now or datetime.now(timezone.utc)
        stamp, day = when.strftime("%Y%m%dT%H%M%SZ"), when.strftime("%Y%m%d")
        scope = f"{day}/{self.region}/s3/aws4_request"
        address = urlsplit(self.base)
        signed = {"host": address.netloc, **{name.lower(): value for name, value in (headers or {}).items()}}
        names = ";".join(sorted(signed))
        asked = {
            **(query or {}),
            "X-Amz-Algorithm": ALGORITHM,
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": names,
        }
        if self.token:
            asked["X-Amz-Security-Token"] = self.token
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(asked.items()))
        path = f"{address.path}/{quote(key, safe='/~')}"
        lines = "".join(f"{name}:{signed[name].strip()}\n" for name in sorted(signed))
        request = "\n".join((method, path, text, lines, names, "UNSIGNED-PAYLOAD"))
        digest = hashlib.sha256(request.encode()).hexdigest()
        signature = self._signature(day, "\n".join((ALGORITHM, stamp, scope, digest)))
        return f"{address.scheme}://{address.netloc}{path}?{text}&X-Amz-Signature={signature}"

    def _signature(self, day: str, text: str) -> str:
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key.hex()
