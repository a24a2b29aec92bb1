"""A renewed certificate is used from the next connection on; a damaged one is not."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.server.border.tls import Certificate
from tests.environment.certificates import Authority


def shown(certificate: Certificate, authority: Authority, name: str) -> int:
    """The serial number that a client which trusts the authority is shown."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = certificate.context.wrap_bio(outgoing, incoming, server_side=True)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    client = trusting.wrap_bio(incoming, outgoing, server_hostname=name)
    for side in (client, server) * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = client.getpeercert()
    assert found
    return int(str(found["serialNumber"]), 16)


def test_a_renewed_certificate_is_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = Certificate(*authority.issue("ml.example"))
    first = shown(served, authority, "ml.example")
    served.renew()
    assert shown(served, authority, "ml.example") == first

    authority.issue("ml.example")
    served.renew()

    assert shown(served, authority, "ml.example") != first


def test_while_the_files_do_not_fit_the_old_one_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("ml.example")
    served = Certificate(certificate, key)
    first, old = shown(served, authority, "ml.example"), key.read_bytes()

    authority.issue("ml.example")
    new = key.read_bytes()
    key.write_bytes(old)
    with caplog.at_level(logging.WARNING):
        served.renew()
        served.renew()
    assert shown(served, authority, "ml.example") == first
    assert len(caplog.records) == 1
    key.unlink()
    served.renew()
    key.write_bytes(new)
    served.renew()

    assert shown(served, authority, "ml.example") != first


def test_one_file_may_hold_both(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("ml.example")
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())

    assert shown(Certificate(both, None), authority, "ml.example")


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, _ = authority.issue("ml.example")
    _, key = authority.issue("other.example")

    with pytest.raises(UsageError, match="can't be used with the key"):
        Certificate(certificate, key)
    with pytest.raises(UsageError, match="can't be used with the key"):
        Certificate(certificate, None)
