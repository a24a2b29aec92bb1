"""Where messages go: the URLs of `dstack config --notify`, read, checked and masked."""

from __future__ import annotations

import base64
import binascii
import re
from enum import Enum
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from msgspec import Struct

from dstack.errors import UsageError

LONGEST = 2000
"""Characters of a URL."""
MOST_RECIPIENTS = 20
PORTS = {"https": 443, "http": 80, "smtps": 465, "smtp": 587}
SLACK_HOSTS = frozenset({"hooks.slack.com", "hooks.slack-gov.com"})
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}")
SAFE = "/%:@!$&'()*+,;=~-._"
SECRET_BYTES = range(24, 65)
"""How long a key for signatures may be (https://www.standardwebhooks.com)."""
FORMS = (
    "write https://HOST/PATH, slack+https://HOST/PATH, ntfy://HOST/TOPIC, mailto:ann@example.org, or"
    " smtp://USER:SECRET_NAME@HOST:587?to=ann@example.org"
)


class Kind(str, Enum):
    """The form in which a target wants messages."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    NTFY = "ntfy"
    MAIL = "mail"
    SERVER = "mail-server"
    """No target: the mail server for `mailto:` URLs."""


class Target(Struct, frozen=True, kw_only=True):
    """A URL, read. `scheme` is http, https, smtp or smtps; without a `host`, the server's mail server is used.
    `password` is that of HTTP, or the name of the secret with that of SMTP; `key` signs a webhook; mail goes `to` these
    addresses."""

    kind: Kind
    scheme: str
    host: str
    port: int
    path: str = "/"
    user: str = ""
    password: str = ""
    key: bytes = b""
    to: tuple[str, ...] = ()
    sender: str = ""

    @property
    def masked(self) -> str:
        """The URL without what must stay secret: passwords, keys, and paths, which are secrets at Slack and ntfy."""
        if not self.host:
            return f"mailto:{','.join(self.to)}"
        scheme = f"{self.kind.value}+{self.scheme}" if self.kind in (Kind.SLACK, Kind.NTFY) else self.scheme
        login = "***@" if self.user or self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        rest = f"?to={','.join(self.to)}" if self.to else "/***" if self.path not in ("", "/") else ""
        return f"{scheme}://{login}{host}{port}{rest}"

    def hide(self, text: str) -> str:
        """Return a text of the other side without the parts of the URL that must stay secret."""
        hidden = {self.path, self.password, *re.split("[/?&=]", self.path)}
        for part in sorted(hidden, key=len, reverse=True):
            text = text.replace(part, "***") if len(part) > 3 else text
        return text


def parse(url: str) -> Target:
    """Read a URL. Raises UsageError, which does not repeat what may be a secret."""
    if len(url) > LONGEST or re.search(r"[\x00-\x20\x7f-\x9f\ud800-\udfff]", url):
        raise UsageError(f"the URL has a space or a control character, or more than {LONGEST} characters", hint=FORMS)
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except (ValueError, UnicodeError) as error:
        raise UsageError("the URL's host or port is not valid", hint=FORMS) from error
    if parts.scheme == "mailto":
        return Target(kind=Kind.MAIL, scheme="smtp", host="", port=25, to=recipients([unquote(parts.path)]))
    form, _, scheme = parts.scheme.rpartition("+")
    scheme, form = ("https", "ntfy") if scheme == "ntfy" else (scheme, form)
    if scheme not in PORTS or form not in ("", "slack", "ntfy") or (form and "smtp" in scheme):
        raise UsageError(f"dstack can't send messages to '{parts.scheme or url.partition(':')[0]}:' URLs", hint=FORMS)
    if not host or port == 0:
        raise UsageError("the URL names no host, or port 0", hint=FORMS)
    if "smtp" in scheme:
        return _mail(parts, scheme, host, port or PORTS[scheme])
    return _http(parts, scheme, form, host, port or PORTS[scheme])


def _http(parts: SplitResult, scheme: str, form: str, host: str, port: int) -> Target:
    kind = Kind(form) if form else _known(host)
    path = quote(parts.path or "/", safe=SAFE)
    if kind is Kind.NTFY and not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)*/[A-Za-z0-9_-]{1,64}", path):
        raise UsageError("an ntfy URL ends with a topic of letters, digits, '-' and '_'", hint="ntfy://ntfy.sh/TOPIC")
    if parts.fragment and kind is not Kind.WEBHOOK:
        raise UsageError("only a webhook's URL can have a key for signatures after '#'", hint=FORMS)
    return Target(
        kind=kind,
        scheme=scheme,
        host=host,
        port=port,
        path=path + (f"?{quote(parts.query, safe=SAFE + '?')}" if parts.query else ""),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        key=_key(parts.fragment) if parts.fragment else b"",
    )


def _known(host: str) -> Kind:
    if host in SLACK_HOSTS:
        return Kind.SLACK
    return Kind.NTFY if host == "ntfy.sh" else Kind.WEBHOOK


def _key(fragment: str) -> bytes:
    """Return the key in `whsec_...`."""
    try:
        if fragment.startswith("whsec_"):
            key = base64.b64decode(fragment.removeprefix("whsec_"), validate=True)
            if len(key) in SECRET_BYTES:
                return key
    except binascii.Error:
        pass
    hint = "leave out '#...': dstack makes a key and prints it once"
    raise UsageError("the part after '#' is not whsec_ and 24 to 64 bytes in base64", hint=hint)


def with_key(url: str, key: bytes) -> str:
    """Return a webhook's URL with a key for signatures."""
    return f"{url.partition('#')[0]}#{shown_key(key)}"


def shown_key(key: bytes) -> str:
    """Return a key as receivers want it."""
    return f"whsec_{base64.b64encode(key).decode()}"


def _mail(parts: SplitResult, scheme: str, host: str, port: int) -> Target:
    options = parse_qs(parts.query, keep_blank_values=True)
    if unknown := options.keys() - {"to", "from"}:
        raise UsageError(
            f"an smtp URL has no option '{min(unknown)}'", hint="its options are to=ADDRESS and from=ADDRESS"
        )
    if parts.path not in ("", "/") or parts.fragment:
        raise UsageError("an smtp URL has nothing but options after its host", hint=FORMS)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if bool(user) != bool(password) or (password and not (password.isidentifier() and password.isascii())):
        hint = "dstack secrets set SMTP_PASSWORD, then write smtp://USER:SMTP_PASSWORD@HOST:587?to=ADDRESS"
        raise UsageError("an smtp URL has a user and the name of the secret with the password, or neither", hint=hint)
    return Target(
        kind=Kind.MAIL if "to" in options else Kind.SERVER,
        scheme=scheme,
        host=host,
        port=port,
        user=user,
        password=password,
        to=recipients(options["to"]) if "to" in options else (),
        sender=recipients(options["from"])[0] if "from" in options else "",
    )


def recipients(texts: list[str]) -> tuple[str, ...]:
    """Return the mail addresses in comma-separated texts. Raises UsageError."""
    found = tuple(address.strip() for text in texts for address in text.split(","))
    wrong = next((address for address in found if not ADDRESS.fullmatch(address)), None)
    if wrong is None and len(found) <= MOST_RECIPIENTS:
        return found
    what = f"there are more than {MOST_RECIPIENTS} mail addresses"
    if wrong is not None:
        what = f"'{wrong}' is not a valid mail address"
    raise UsageError(what, hint="write addresses such as ann@example.org, with commas between them")
