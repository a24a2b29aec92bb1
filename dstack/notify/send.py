"""Sends one message to one target, within a time limit, and says what the other side answered."""

from __future__ import annotations

import asyncio
import http.client
import smtplib
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from dstack.errors import DstackError, reason
from dstack.model.notify.message import Message
from dstack.model.notify.target import Kind, Target
from dstack.model.text.untrusted import clean_line
from dstack.notify import mail, web
from dstack.notify.addresses import Allowed

WORDS = 300
"""Characters of an answer that are kept."""
T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """How the other side took a message. `words` are what it said, or why it could not be asked. `again`: the seconds
    that it asks to wait. `gone`: it wants no more messages. `refused`: it answered, and doesn't accept this message."""

    ok: bool
    words: str
    again: float | None = None
    gone: bool = False
    refused: bool = False


def deliver(message: Message, target: Target, password: str, allowed: Allowed) -> Delivery:
    """Send a message. `password` is the secret that the URL names. What goes wrong is an answer, too."""
    try:
        if target.kind is Kind.MAIL:
            return Delivery(True, shown(target, mail.send(message, target, password, allowed)))
        return answer(target, web.send(message, target, time.time(), allowed))
    except DstackError as error:
        return Delivery(False, error.message)
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
        return Delivery(False, shown(target, f"{error.smtp_code} {said}"), refused=500 <= error.smtp_code < 600)
    except smtplib.SMTPRecipientsRefused as error:
        return Delivery(False, shown(target, f"no recipient was accepted: {error.recipients}"), refused=True)
    except ssl.SSLCertVerificationError as error:
        return Delivery(False, shown(target, f"its certificate can't be verified: {error.verify_message}"))
    except TimeoutError:
        return Delivery(False, "it did not answer in time")
    except (OSError, http.client.HTTPException, smtplib.SMTPException, ValueError) as error:
        return Delivery(False, shown(target, reason(error)))


def answer(target: Target, got: web.Response) -> Delivery:
    """Return what an HTTP response means. Redirects are not followed: a message goes where its URL says."""
    words = f"{got.status} {got.phrase}".strip()
    if 200 <= got.status < 300:
        return Delivery(True, shown(target, f"{words}: {got.body}" if got.body else words))
    if 300 <= got.status < 400:
        return Delivery(
            False, f"{words}: it redirects elsewhere, which is not followed; set the other URL", refused=True
        )
    refused = 400 <= got.status < 500 and got.status not in (408, 425, 429)
    said = shown(target, f"{words}: {got.body}" if got.body else words)
    return Delivery(False, said, got.again, gone=got.status == 410, refused=refused)


def shown(target: Target, text: str) -> str:
    """Return what the other side said, fit to be shown: in one line, without the URL's secrets."""
    return clean_line(target.hide(text), WORDS).strip()


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread of its own. It takes no place in the pool that jobs need, and does not keep the
    process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def act() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with suppress(RuntimeError):  # the server has stopped meanwhile, and sends the message again later
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=act, daemon=True, name="notify").start()
    return await done
