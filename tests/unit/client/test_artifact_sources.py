"""Files straight from a real S3 server behind TLS, as from AWS."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dstack.artifacts.s3.store import S3Store
from dstack.cli import connect
from dstack.client.artifact_sources import ArtifactSources
from dstack.client.client import Client
from dstack.client.settings import Endpoint
from dstack.model.api.artifacts import ArtifactView, LinksView
from tests.environment.forward import forward
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3
from tests.unit.artifacts.made import Index

CONTENT = bytes(range(256)) * 4000


class Server(Client):
    """A server whose storage is the bucket."""

    store: S3Store

    def artifact_urls(self, job: str, paths: Sequence[str]) -> LinksView:
        return LinksView(urls=asyncio.run(self.store.urls("r", "w", paths)), expires_at="")

    def artifact(self, job: str, path: str, offset: int) -> Iterator[bytes]:
        yield b"through the server"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain) + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server(s3_server: S3, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Proxy]]:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    S3Store(f"s3://{BUCKET}", s3_server.url, Index()).bucket.call("put_object", Key="r/w/a", Body=CONTENT)
    proxy = Proxy(s3_server.port, certificate)
    server = Server(Endpoint.parse("/nowhere"))
    server.store = S3Store(f"s3://{BUCKET}", proxy.url, Index())
    try:
        yield server, proxy
    finally:
        proxy.close()
        s3_server.restore()


def read(server: Server, offset: int = 0) -> bytes:
    view = ArtifactView(job="j", workflow="w", path="a", size=len(CONTENT), mode=0o644, sha256="")
    with closing(ArtifactSources(server, [view], connect.warn)) as sources:
        return b"".join(sources.read(view, offset))


def test_a_file_comes_over_tls(
    server: tuple[Server, Proxy], certificate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    assert read(server[0]) == CONTENT
    assert read(server[0], 1000) == CONTENT[1000:]
    assert capsys.readouterr().err == ""


def test_a_certificate_that_nobody_vouches_for_is_not_taken(
    server: tuple[Server, Proxy], capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(server[0]) == b"through the server"
    assert "certificate verify failed" in capsys.readouterr().err
    assert not server[1].passed


def test_what_is_refused_twice_comes_through_the_server(
    server: tuple[Server, Proxy], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server[1].refuse = lambda request: "AccessDenied"

    assert read(server[0]) == b"through the server"
    assert len(server[1].passed) == 2


@pytest.mark.parametrize("login", ["", "ann:p@ss word"])
def test_tls_goes_through_the_proxy_of_the_environment(
    server: tuple[Server, Proxy], certificate: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with forward(login) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{'ann:p%40ss%20word@' if login else ''}127.0.0.1:{proxy.port}")

        assert read(server[0], 1000) == CONTENT[1000:]

        assert proxy.asked == [f"CONNECT {server[1].url.removeprefix('https://')}"]
        monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
        assert read(server[0]) == CONTENT
        assert len(proxy.asked) == 1


def test_a_proxy_that_lets_nobody_through_is_told(
    server: tuple[Server, Proxy], certificate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with forward("ann:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:wrong@127.0.0.1:{proxy.port}")

        assert read(server[0]) == b"through the server"

        said = capsys.readouterr().err
        assert f"can't be reached from this machine through the proxy http://127.0.0.1:{proxy.port}: " in said
        assert "407" in said
        assert "wrong" not in said
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    assert read(server[0]) == b"through the server"
    assert "socks5://127.0.0.1:1 is not an HTTP proxy" in capsys.readouterr().err
