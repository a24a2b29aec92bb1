"""URLs of targets: read, refused and masked."""

from __future__ import annotations

import base64

import pytest

from dstack.errors import UsageError
from dstack.model.notify.target import Kind, Target, parse, shown_key, with_key

KEY = base64.b64encode(b"k" * 32).decode()


@pytest.mark.parametrize(
    ("url", "kind", "address", "path"),
    [
        ("https://example.org/hook?a=1&b=x%20y", Kind.WEBHOOK, ("https", "example.org", 443), "/hook?a=1&b=x%20y"),
        ("http://10.0.0.1:8080", Kind.WEBHOOK, ("http", "10.0.0.1", 8080), "/"),
        ("https://[::1]:8443/x", Kind.WEBHOOK, ("https", "::1", 8443), "/x"),
        ("https://bücher.example/ä", Kind.WEBHOOK, ("https", "xn--bcher-kva.example", 443), "/%C3%A4"),
        ("https://hooks.slack.com/services/T/B/x", Kind.SLACK, ("https", "hooks.slack.com", 443), "/services/T/B/x"),
        ("slack+https://chat.lab/hooks/x", Kind.SLACK, ("https", "chat.lab", 443), "/hooks/x"),
        ("ntfy://ntfy.sh/runs", Kind.NTFY, ("https", "ntfy.sh", 443), "/runs"),
        ("https://ntfy.sh/runs", Kind.NTFY, ("https", "ntfy.sh", 443), "/runs"),
        ("ntfy+http://lab:8080/push/runs", Kind.NTFY, ("http", "lab", 8080), "/push/runs"),
    ],
)
def test_a_url_over_http(url: str, kind: Kind, address: tuple[str, str, int], path: str) -> None:
    target = parse(url)

    assert (target.kind, (target.scheme, target.host, target.port), target.path) == (kind, address, path)


def test_urls_for_mail() -> None:
    assert parse("mailto:ann@example.org").to == ("ann@example.org",)
    full = parse("smtp://ann%40example.org:SMTP_PASSWORD@mail.example.org?to=a@x.org,b@x.org&from=d@x.org")
    assert (full.port, full.user, full.password) == (587, "ann@example.org", "SMTP_PASSWORD")
    assert (full.to, full.sender) == (("a@x.org", "b@x.org"), "d@x.org")
    assert parse("smtps://mail.lab?to=a@x.org").port == 465
    assert parse("smtp://mail.lab:25").kind is Kind.SERVER


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "can't send messages to"),
        ("ftp://example.org/", "can't send messages to 'ftp:' URLs"),
        ("slack+smtp://example.org/", "can't send messages to 'slack+smtp:' URLs"),
        ("https://", "names no host"),
        ("https://example.org:0/", "port 0"),
        ("https://example.org:99999/", "host or port is not valid"),
        ("https://[::1/", "host or port is not valid"),
        ("https://example.org/\nX", "a space or a control character"),
        ("https://example.org/" + "x" * 2000, "more than 2000 characters"),
        ("https://example.org/#whsec_AAAA", "not whsec_ and 24 to 64 bytes"),
        ("https://example.org/#secret", "not whsec_ and 24 to 64 bytes"),
        (f"ntfy://ntfy.sh/runs#whsec_{KEY}", "only a webhook's URL can have a key"),
        ("ntfy://ntfy.sh/", "ends with a topic"),
        ("ntfy://ntfy.sh/a%0ab", "ends with a topic"),
        ("mailto:ann", "'ann' is not a valid mail address"),
        ("mailto:ann@x.org%0d%0aBcc:all@x.org", "is not a valid mail address"),
        ("mailto:", "'' is not a valid mail address"),
        ("mailto:" + ",".join(f"a{n}@x.org" for n in range(21)), "more than 20"),
        ("smtp://ann@mail.lab?to=a@x.org", "the name of the secret with the password"),
        ("smtp://ann:my-password@mail.lab?to=a@x.org", "the name of the secret with the password"),
        ("smtp://mail.lab?cc=a@x.org", "no option 'cc'"),
        ("smtp://mail.lab/a@x.org", "nothing but options after its host"),
    ],
)
def test_what_is_not_a_target_is_refused(url: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(url)

    assert words in refused.value.message
    assert refused.value.hint
    assert "my-password" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("https://ann:pw@example.org:8443/t0ken?k=v", "https://***@example.org:8443/***"),
        ("https://example.org", "https://example.org"),
        (f"https://[::1]/x#whsec_{KEY}", "https://[::1]/***"),
        ("https://hooks.slack.com/services/T/B/x", "slack+https://hooks.slack.com/***"),
        ("ntfy://:tk_secret@ntfy.sh/runs", "ntfy+https://***@ntfy.sh/***"),
        ("mailto:ann@example.org", "mailto:ann@example.org"),
        ("smtp://ann:PASS@mail.lab?to=a@x.org&from=b@x.org", "smtp://***@mail.lab?to=a@x.org"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, masked: str) -> None:
    assert parse(url).masked == masked


def test_what_the_other_side_says_is_shown_without_the_urls_secrets() -> None:
    target = parse("https://ann:hunter22@example.org/services/T0kenT0ken?key=abcdef")

    shown = target.hide("no route /services/T0kenT0ken?key=abcdef; T0kenT0ken, abcdef and hunter22 are unknown to me")

    assert shown == "no route ***; ***, *** and *** are unknown to me"


def test_a_key_can_be_added_to_a_url_and_shown() -> None:
    url = with_key("https://example.org/hook", b"k" * 32)

    assert url == f"https://example.org/hook#whsec_{KEY}"
    assert shown_key(parse(url).key) == f"whsec_{KEY}"
    assert isinstance(parse(url), Target)
