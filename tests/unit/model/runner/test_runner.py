from __future__ import annotations

import pytest

from dstack.model.runner.runner import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("box", Address(host="box")),
        ("me@box", Address(host="box", user="me")),
        ("me@corp@box:22", Address(host="box", user="me@corp", port=22)),
        ("10.0.0.1:65535", Address(host="10.0.0.1", port=65535)),
        ("::1", Address(host="::1")),
        ("me@fe80::1%eth0", Address(host="fe80::1%eth0", user="me")),
        ("[::1]", Address(host="::1")),
        ("[box]:22", Address(host="box", port=22)),
        ("me@[::1]:2222", Address(host="::1", user="me", port=2222)),
        ("[fe80::1%eth0]:22", Address(host="fe80::1%eth0", port=22)),
        ("DOMAIN\\ann@box", Address(host="box", user="DOMAIN\\ann")),
        ("my_alias.lab", Address(host="my_alias.lab")),
    ],
)
def test_an_address_as_a_person_types_it(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "@box",
            "me@",
            "box:",
            "box:ssh",
            "box:0",
            "box:65536",
            "a b",
            "me@box/x",
            "[]:1",
            "box:\u0661",
            "box:9" * 9,
        ),
        *(
            "-oProxyCommand=x",
            "me@-x",
            "-x@box",
            "[::1",
            "::1]",
            "[::1]x",
            "a\tb",
            "a\u2028b",
            "x:::y",
            "[[::1]]",
        ),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|port"):
        Address.parse(text)
