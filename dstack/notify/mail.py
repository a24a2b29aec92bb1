"""Messages by mail."""

from __future__ import annotations

import ipaddress
import smtplib
import socket
import ssl
from contextlib import suppress

from dstack.model.notify import forms
from dstack.model.notify.message import Message
from dstack.model.notify.target import Target
from dstack.notify.addresses import Allowed, connect
from dstack.notify.limit import READ, limited


class Unencrypted(smtplib.SMTPException):
    """A password would be sent in the clear."""


def send(message: Message, target: Target, password: str, allowed: Allowed) -> str:
    """Send a message, and return the mail server's answer. Raises OSError, SMTPException and ForbiddenError."""
    opened = connect(target.host, target.port, READ, allowed)
    try:
        with limited(opened):
            return exchanged(message, target, password, opened)
    finally:
        opened.close()


def exchanged(message: Message, target: Target, password: str, opened: socket.socket) -> str:
    client = MailClient(target, opened)
    try:
        client.ehlo_or_helo_if_needed()
        if target.scheme == "smtp" and not (local(opened) and not target.user):
            encrypt(client, target)
        if target.user:
            client.login(target.user, password)
        sender = target.sender or (target.user if "@" in target.user else f"dstack@{socket.gethostname()}")
        refused = client.send_message(forms.mail(message, target, sender), sender, target.to)
        with suppress(smtplib.SMTPException, OSError):  # the mail is accepted: it must not be sent again
            client.quit()
        return client.accepted + (f"; refused: {', '.join(refused)}" if refused else "")
    finally:
        client.close()


def encrypt(client: MailClient, target: Target) -> None:
    """Begin TLS if the server offers it. It must if there is a password."""
    if client.has_extn("starttls"):
        client.starttls(context=ssl.create_default_context())
        client.ehlo()
    elif target.user:
        raise Unencrypted("the mail server offers no TLS, so the password was not sent; smtps:// begins with TLS")


def local(opened: socket.socket) -> bool:
    """Whether the other side is this machine, whose mail server rarely has a certificate for `localhost`."""
    return ipaddress.ip_address(str(opened.getpeername()[0]).partition("%")[0]).is_loopback


class MailClient(smtplib.SMTP):
    """smtplib's client over a connection that is open already. It keeps the answer to the mail itself."""

    def __init__(self, target: Target, opened: socket.socket) -> None:
        self.opened, self.target, self.accepted = opened, target, ""
        super().__init__(target.host, target.port, local_hostname=socket.gethostname() or "localhost", timeout=READ)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        self._host = host  # the name that STARTTLS verifies
        if self.target.scheme == "smtps":
            return ssl.create_default_context().wrap_socket(self.opened, server_hostname=host)
        return self.opened

    def data(self, msg: bytes | str) -> tuple[int, bytes]:  # type: ignore[override]
        code, said = super().data(msg)
        self.accepted = f"{code} {said.decode(errors='replace')}"
        return code, said
