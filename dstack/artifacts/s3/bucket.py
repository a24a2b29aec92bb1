"""A bucket, and what its answers mean. boto3 is imported on first use, so a server without S3 never pays for it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from dstack.artifacts.s3.presign import AccessKeys, Signer
from dstack.errors import StorageError, UsageError

FORBIDDEN = {"AccessDenied", "AllAccessDisabled", "403", "Forbidden", "AccountProblem"}
WRONG_KEYS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "AuthFailure"}
GONE = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the server, or edit ~/.aws, then: dstack server stop"
NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
"""The bucket names that boto3 accepts; AWS accepts fewer for new buckets."""
PATIENCE = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 4, "mode": "standard"}}
AT_ONCE = 16
"""Most requests that the server itself sends to the bucket at once."""


def parse(url: str) -> tuple[str, str]:
    """Return bucket and prefix of `s3://bucket/prefix`. Raises UsageError for any other URL."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    odd = parts.query or parts.fragment or "//" in prefix or {".", ".."} & set(prefix.split("/"))
    if (
        parts.scheme != "s3"
        or not NAME.fullmatch(parts.netloc)
        or odd
        or any(ord(c) < 33 or ord(c) > 126 for c in prefix)
    ):
        raise UsageError(f"'{url}' is not a valid storage URL; write s3://bucket/prefix")
    return parts.netloc, prefix


class Bucket:
    """One bucket at `endpoint`, by default AWS's own. Safe to use from several threads."""

    def __init__(self, name: str, endpoint: str | None = None) -> None:
        self.name = name
        self.endpoint = endpoint
        self._lock = threading.Lock()
        self._client: Any = None
        self._session: Any = None

    @property
    def client(self) -> Any:
        """The boto3 client, connected on first use."""
        with self._lock:
            if self._client is None:
                self._client = self._connected()
            return self._client

    def call(self, operation: str, **parameters: Any) -> Any:
        """Send one request. Raises StorageError."""
        with trouble(self.name, self.endpoint):
            return getattr(self.client, operation)(Bucket=self.name, **parameters)

    def pages(self, operation: str, field: str, **parameters: Any) -> Iterator[Any]:
        """Yield the entries of a list from all its pages. Raises StorageError."""
        with trouble(self.name, self.endpoint):
            for page in self.client.get_paginator(operation).paginate(Bucket=self.name, **parameters):
                yield from page.get(field, ())

    def signer(self) -> Signer:
        """Return a signer of URLs with the current credentials."""
        with trouble(self.name, self.endpoint):
            client = self.client
            keys = self._session.get_credentials().get_frozen_credentials()
            example = client.generate_presigned_url("get_object", Params={"Bucket": self.name, "Key": "k"})
        base = str(example).split("?")[0].removesuffix("/k")
        return Signer(base, client.meta.region_name, AccessKeys(keys.access_key, keys.secret_key, keys.token))

    def check(self, key: str) -> None:
        """Raise UsageError unless an object can be written, read, listed and removed."""
        content = b"dstack may write here\n"
        try:
            self.call("put_object", Key=key, Body=content)
            if self.call("get_object", Key=key)["Body"].read() != content:
                raise StorageError(f"the bucket '{self.name}' returned different bytes from those written")
            self.call("list_objects_v2", Prefix=key, MaxKeys=1)
            self.call("delete_object", Key=key)
        except StorageError as error:
            raise UsageError(f"the storage can't be used: {error.message}", hint=error.hint) from error

    def _connected(self) -> Any:
        import boto3
        from botocore.config import Config

        with trouble(self.name, self.endpoint):
            self._session = boto3.session.Session()
            if self._session.get_credentials() is None:
                raise StorageError("the server has no credentials for S3", hint=CREDENTIALS)
            client = self._made(Config, self._session.region_name or os.environ.get("AWS_REGION") or "us-east-1")
            region = None if self.endpoint else self._region(client)
            return client if region in (None, client.meta.region_name) else self._made(Config, region)

    def _made(self, config: Any, region: str | None) -> Any:
        return self._session.client(
            "s3",
            region_name=region,
            endpoint_url=self.endpoint,
            config=config(
                signature_version="s3v4",
                max_pool_connections=AT_ONCE,
                s3={"addressing_style": "path"} if self.endpoint else {},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                **PATIENCE,
            ),
        )

    def _region(self, client: Any) -> str | None:
        """Return the region where AWS keeps the bucket: it refuses URLs signed for another one."""
        from botocore.exceptions import ClientError

        try:
            answer = client.head_bucket(Bucket=self.name)
        except ClientError as error:
            answer = error.response
        headers: dict[str, str] = answer["ResponseMetadata"].get("HTTPHeaders", {})
        return headers.get("x-amz-bucket-region")


@contextlib.contextmanager
def trouble(bucket: str, endpoint: str | None) -> Iterator[None]:
    """Turn whatever boto3 raises into StorageError."""
    import botocore.exceptions as raised

    try:
        yield
    except raised.ClientError as error:
        raise refused(bucket, endpoint, error.response) from error
    except (raised.BotoCoreError, raised.HTTPClientError, ValueError) as error:
        message = str(error).rstrip(".")
        hint = CREDENTIALS if "credential" in message.lower() else "check the endpoint: dstack config"
        raise StorageError(f"S3 does not answer: {message}", hint=hint) from error


class ObjectGoneError(StorageError):
    """The object or upload is not there."""


def refused(bucket: str, endpoint: str | None, response: Any) -> StorageError:
    """Return the error for a refused request."""
    error = response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", "")).rstrip(".")
    at = f" at {endpoint}" if endpoint else ""
    if code == "NoSuchBucket":
        return StorageError(f"there is no bucket '{bucket}'{at}", hint="create it, or: dstack config --storage URL")
    if code in WRONG_KEYS:
        return StorageError(f"S3 refuses the server's credentials{at}: {code}: {message}", hint=CREDENTIALS)
    if code in FORBIDDEN:
        return StorageError(
            f"the server's credentials may not use the bucket '{bucket}'{at}: {code}",
            hint="allow s3:PutObject, GetObject, DeleteObject, ListBucket and AbortMultipartUpload on it",
        )
    if code in GONE:
        return ObjectGoneError(f"the object is not in the bucket '{bucket}'{at}: {code}")
    answer = f"S3 answered {code or 'with an error'}{at}: {message}"
    return StorageError(answer, hint="dstack config shows the storage")
