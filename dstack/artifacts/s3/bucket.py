"""A bucket, and what its answers mean. boto3 is imported on first use, so a server without S3 never pays for it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from dstack.artifacts.files import BLOCK
from dstack.artifacts.s3.presign import Signer
from dstack.errors import StorageError, StorageUnavailableError, UsageError

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
    unprintable = any(not "!" <= letter <= "~" for letter in prefix)
    if odd or unprintable or parts.scheme != "s3" or not NAME.fullmatch(parts.netloc):
        raise UsageError(f"'{url}' is not a valid storage URL; write s3://bucket/prefix")
    return parts.netloc, prefix


class ObjectGoneError(StorageError):
    """The object or upload is not there."""


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
        with self.trouble():
            return getattr(self.client, operation)(Bucket=self.name, **parameters)

    def pages(self, operation: str, field: str, **parameters: Any) -> Iterator[Any]:
        """Yield the entries of a list from all its pages. Raises StorageError."""
        with self.trouble():
            for page in self.client.get_paginator(operation).paginate(Bucket=self.name, **parameters):
                yield from page.get(field, ())

    def read(self, key: str, **parameters: Any) -> Iterator[bytes]:
        """Yield an object's bytes. Raises StorageError."""
        body = self.call("get_object", Key=key, **parameters)["Body"]
        with self.trouble(), contextlib.closing(body):
            yield from body.iter_chunks(BLOCK)

    def signer(self) -> Signer:
        """Return a signer of URLs with the current credentials."""
        with self.trouble():
            client = self.client
            keys = self._session.get_credentials().get_frozen_credentials()
            example = client.generate_presigned_url("get_object", Params={"Bucket": self.name, "Key": "k"})
        base = str(example).split("?")[0].removesuffix("/k")
        return Signer(base, client.meta.region_name, keys.access_key, keys.secret_key, keys.token)

    def check(self, key: str) -> None:
        """Raise UsageError unless an object can be written, read, listed and removed."""
        content = b"dstack may write here\n"
        try:
            self.call("put_object", Key=key, Body=content)
            if b"".join(self.read(key)) != content:
                raise StorageError(f"the bucket '{self.name}' returned different bytes from those written")
            self.call("list_objects_v2", Prefix=key, MaxKeys=1)
            self.call("delete_object", Key=key)
        except StorageError as error:
            raise UsageError(f"the storage can't be used: {error.message}", hint=error.hint) from error

    def _connected(self) -> Any:
        import boto3
        from botocore.config import Config

        with self.trouble():
            self._session = boto3.session.Session()
            if self._session.get_credentials() is None:
                raise StorageUnavailableError("the server has no credentials for S3", hint=CREDENTIALS)
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
    def trouble(self) -> Iterator[None]:
        """Turn whatever boto3 raises into StorageUnavailableError, or ObjectGoneError."""
        import botocore.exceptions as raised

        try:
            yield
        except raised.ClientError as error:
            raise self._refused(error.response.get("Error", {})) from error
        except (raised.BotoCoreError, raised.HTTPClientError, ValueError) as error:
            message = str(error).rstrip(".")
            hint = CREDENTIALS if "credential" in message.lower() else "check the endpoint: dstack config"
            raise StorageUnavailableError(f"S3 does not answer: {message}", hint=hint) from error

    def _refused(self, error: Mapping[str, Any]) -> StorageError:
        code, message = str(error.get("Code", "")), str(error.get("Message", "")).rstrip(".")
        at = f" at {self.endpoint}" if self.endpoint else ""
        if code == "NoSuchBucket":
            hint = "create it, or: dstack config --storage URL"
            return StorageUnavailableError(f"there is no bucket '{self.name}'{at}", hint=hint)
        if code in WRONG_KEYS:
            return StorageUnavailableError(
                f"S3 refuses the server's credentials{at}: {code}: {message}", hint=CREDENTIALS
            )
        if code in FORBIDDEN:
            return StorageUnavailableError(
                f"the server's credentials may not use the bucket '{self.name}'{at}: {code}",
                hint="allow s3:PutObject, GetObject, DeleteObject, ListBucket and AbortMultipartUpload on it",
            )
        if code in GONE:
            return ObjectGoneError(f"the object is not in the bucket '{self.name}'{at}: {code}")
        answer = f"S3 answered {code or 'with an error'}{at}: {message}"
        return StorageUnavailableError(answer, hint="dstack config shows the storage")
