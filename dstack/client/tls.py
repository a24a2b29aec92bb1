"""Says clearly why an encrypted connection to the server failed, or that one was needed."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from dstack.client.settings import Endpoint
from dstack.errors import DstackError, ErrorCode, UsageError

SECONDS = 5.0
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST")
"""What the versions of OpenSSL call an answer in plain text."""


def refuse_certificate(endpoint: Endpoint, error: OSError) -> None:
    """Raise a DstackError if the error says that the server's certificate can't be trusted, or that it has none."""
    if isinstance(error, ssl.SSLCertVerificationError):
        raise DstackError(
            f"the certificate of {endpoint.url} can't be trusted: {error.verify_message.rstrip('.')}; nothing was sent",
            hint="if your own authority issued it, save that authority's certificate: dstack config --tls-ca FILE",
            code=ErrorCode.CERTIFICATE,
        ) from error
    if isinstance(error, ssl.SSLError) and error.reason in NO_TLS and not speaks_tls(endpoint):
        plain = endpoint.url.replace("https://", "http://", 1)
        message = f"{endpoint.url} does not use TLS; nothing was sent"
        raise UsageError(message, hint=f"dstack config --url {plain}", code=ErrorCode.WRONG_SCHEME) from error


def refuse_wrong_scheme(endpoint: Endpoint) -> None:
    """Raise a DstackError if the URL begins with http:// and a server with TLS listens there."""
    if endpoint.url.startswith("http://") and speaks_tls(endpoint):
        secure = endpoint.url.replace("http://", "https://", 1)
        message = f"the server at {endpoint.url} uses TLS, so it did not understand the request"
        raise UsageError(message, hint=f"dstack config --url {secure}", code=ErrorCode.WRONG_SCHEME)


def speaks_tls(endpoint: Endpoint) -> bool:
    """Whether a server with TLS, with any certificate, listens at the endpoint. Nothing is sent to it."""
    parts = urlsplit(endpoint.url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False
