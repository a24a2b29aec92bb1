"""Inventories by kind, each as its files. The first file is what is imported; `x:` before a name sets its x bit."""

# ruff: noqa: E501 - an inventory is one row

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

Files = dict[str, str | bytes]

INI = "[web]\na ansible_user=ann\nb:2222\n[db]\nc\n[all:children]\nweb\ndb\n"
YAML = "all:\n  hosts:\n    a: {ansible_user: ann}\n  children:\n    web:\n      hosts: {b: {ansible_port: 2222}}\n"
SCRIPT = (
    '#!/bin/sh\necho \'{"web": {"hosts": ["a", "b"], "vars": {"k": 1}}, "_meta": {"hostvars": {"a": {"v": 2}}}}\'\n'
)


def inventories() -> dict[str, Files]:
    """Return all inventories, by name."""
    kinds = {"ini": inis(), "value": values(), "yaml": yamls(), "program": programs(), "folder": folders()}
    kinds |= {"beside": besides(), "bytes": odd_bytes(), "refused": refused()}
    return {f"{kind}-{index}": files for kind, each in kinds.items() for index, files in enumerate(each)}


def write(folder: Path, files: Files) -> Path:
    """Write the files, and return the path to import."""
    paths = []
    for written, content in files.items():
        name = written.removeprefix("x:")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o755 if name != written else 0o644)
        paths.append(path)
    first = next(iter(files)).removeprefix("x:")
    return folder / first.split("/")[0] if first.startswith("inventory/") else paths[0]


def inis() -> Iterator[Files]:
    texts = (
        INI,
        "a\nb\n",
        "a # why\n; no\n#no\n",
        "node[1:3]\nrack[a:c]x[01:03]\ns[0:10:5]\n",
        "a:22\n[::1]:2222\nfd00::7\n[fd00::8]\n10.0.0.1:7\n",
        "n[1:3].example.org:2222 ansible_user=ann\n",
        "[web]\na\n[web]\nb\n[web:vars]\nk=1\nk=2\n",
        "[top:children]\nmiddle\n[middle:children]\nlow\n[low]\na\n[top:vars]\nk=top\n[low:vars]\nk=low\n",
        "[a:children]\nc\n[b:children]\nc\n[c]\nx\n[a:vars]\nk=a\n[b:vars]\nk=b\n",
        "[b]\nx\n[a]\nx\n[a:vars]\nk=a\n[b:vars]\nk=b\n[b:vars]\nansible_group_priority=0\n",
        "[b]\nx\n[a]\nx\n[a:vars]\nk=a\nansible_group_priority=10\n[b:vars]\nk=b\n",
        "[all:vars]\nk=all\n[web]\na k=host\nb\n[web:vars]\nk=web\n",
        "[ungrouped]\na\n[web]\nb\n",
        "  [web]  # c\n  a   ansible_user=ann  \n",
        "[web-1]\na\n[web.2]\nb\n[1]\nc\n",
        "a.b-c_d\nUPPER\n\xfcnicode\n",
        "[web]\na\n\n[web:children]\ndb\n[db]\nb # c\n",
        "[g:vars]\nk=1\n[g]\na\n",
        "localhost ansible_connection=local\n127.0.0.1\n",
        "[web]\r\na ansible_user=ann\r\n",
        "a x=1\na y=2\n[g]\na x=3\n",
    )
    for text in texts:
        yield {"hosts": text}
    yield {"hosts.ini": INI}
    yield {"hosts.inventory": INI}
    yield {"x:hosts": INI}
    yield {"x:hosts.ini": INI}


def values() -> Iterator[Files]:
    for value in (
        *("1", "1.5", "True", "true", "None", "'a b'", '"a b"', "[1, 2]", "{'a': 1}", "0x10", "010", "a=b", "", "1_000", "(1, 2)"),
        *("2j", "b'a'", "'a' 'b'", "a#b", "{{ x }}", "\\x", "'it''s'", "1e3", "...", "-1"),
    ):  # fmt: skip
        yield {"hosts": f"[g]\na\n[g:vars]\nk={value}\n"}
    for word in ("k='a b'", 'k="a b"', "k=a\\ b", "'k=a b'", "k=\"'1'\"", "k='[1, 2]'", "k=a#b", "k= ", "k='a=b'"):
        yield {"hosts": f"a {word}\n"}


def yamls() -> Iterator[Files]:
    texts = (
        YAML,
        "all:\n  hosts:\n    a:\n    b: {}\n",
        "web: {hosts: {a: , b: }}\ndb: {hosts: {c: }, vars: {k: 1}}\n",
        "all: {hosts: 'a', children: {web: {hosts: b}}}\n",
        "all: {hosts: {'n[1:3]': {k: 1}, 'x:2222': }}\n",
        "all: {vars: {k: all}, children: {web: {vars: {k: web}, hosts: {a: {k: host}, b: }}}}\n",
        "all: {children: {a: {children: {c: }}, b: {children: {c: }}, c: {hosts: {x: }}}}\n",
        "ungrouped: {hosts: {a: }}\nweb: {hosts: {b: }}\n",
        "all: {hosts: {a: {l: [1, 2], m: {x: 1}, t: 'true', n: null, f: 1.0, o: '010', d: 2020-01-01}}}\n",
        "---\nall:\n  hosts:\n    a: &x {k: 1}\n    b: *x\n    c: {<<: *x, k: 2}\n",
        "all: {hosts: {a: {v: !unsafe '{{ x }}'}}}\n",
        "# comment\nall: # another\n  hosts: # third\n    a: # fourth\n",
        "all:\n  hosts:\n    a:\n      k: |\n        two\n        lines\n",
        "all: {hosts: {a: }, vars: }\n",
        "all: {hosts: {'fd00::7': , '[fd00::8]:22': }}\n",
        "web: {hosts: {a: {yes: no, on: off}}}\n",
        "web: {hosts: {a: {k: 1, k: 2}}}\n",
    )
    for text in texts:
        yield {"hosts.yml": text}
    yield {"hosts": "---\n" + YAML}
    yield {"hosts": YAML}
    yield {"x:hosts.yml": YAML}
    yield {"x:hosts.yaml": "---\n" + YAML}
    yield {"x:hosts": YAML}
    yield {"hosts.json": '{"all": {"hosts": {"a": {"k": 1}}, "children": {"web": {"hosts": {"b": null}}}}}'}
    yield {"hosts": '{"all": {"hosts": {"a": {"k": 1}}}}'}


def programs() -> Iterator[Files]:
    yield {"x:hosts": SCRIPT}
    yield {"x:hosts.sh": SCRIPT}
    yield {"x:hosts.yml": SCRIPT}
    yield {"x:hosts.ini": SCRIPT}
    answers = (
        '{"web": ["a", "b"]}',
        '{"web": {"hosts": ["a"], "children": ["db"]}, "db": {"hosts": ["b"], "vars": {"k": 1}}, "_meta": {"hostvars": {}}}',
        '{"web": {"children": ["db"]}, "db": {"hosts": ["b"]}, "_meta": {"hostvars": {"b": {"ansible_port": 7}}}}',
        '{"all": {"hosts": ["a"], "vars": {"k": 1}}, "_meta": {"hostvars": {"a": {"k": 2}}}}',
        '{"_meta": {"hostvars": {"ghost": {"k": 1}}}, "web": {"hosts": ["a"]}}',
        "{}",
        '{"web": {"hosts": []}}',
        '{"web": {}, "ungrouped": {"hosts": ["a"]}, "_meta": {"hostvars": {}}}',
        '{"web": {"k": 1}, "_meta": {"hostvars": {}}}',
    )
    for answer in answers:
        yield {
            "x:hosts": f"#!/bin/sh\ncase $1 in --list) cat <<'E'\n{answer}\nE\n;; *) echo '{{\"h\": \"'$2'\"}}' ;; esac\n"
        }


def folders() -> Iterator[Files]:
    yield {"inventory/a": "[web]\na\n", "inventory/b": "[web]\nb\n[db]\na\n"}
    yield {"inventory/1.yml": YAML, "inventory/2.ini": "[web]\nz\n[web:vars]\nk=1\n"}
    yield {"inventory/2": "a k=2\n", "inventory/10": "a k=10\n", "inventory/B": "a k=B\n", "inventory/c": "a j=1\n"}
    ignored = (
        "x.bak",
        "x~",
        ".hidden",
        "x.md",
        "x.txt",
        "x.orig",
        "x.cfg",
        "x.retry",
        "x.pyc",
        "x.swp",
        "x.rst",
        "x.rpm",
    )
    yield {"inventory/a": "a\n", **{f"inventory/{name}": "nope\n" for name in ignored}}
    yield {"inventory/a": "a\n", "inventory/sub/b": "[g]\nb\n", "inventory/sub/deep/c": "[g]\nc\n"}
    yield {"inventory/a": "[g]\na\n", "inventory/group_vars/g": "k: 1\n", "inventory/host_vars/a.yml": "h: 1\n"}
    yield {"inventory/a": "[g]\na\n", "group_vars/g": "k: 1\n"}
    yield {"inventory/a": "[g]\na\n", "inventory/sub/group_vars/g": "k: 1\n", "inventory/sub/b": "[g]\nb\n"}
    yield {"inventory/a": "[web]\na\n", "inventory/b": "[top:children]\nweb\n"}
    yield {"x:inventory/a": SCRIPT, "inventory/b": "[web]\nz\n"}
    yield {"inventory/a": "[g]\na\n", "inventory/b": "[g:vars]\nk=1\n"}


def besides() -> Iterator[Files]:
    yield {"hosts": "[g]\na k=file\n[g:vars]\nk=g\n", "group_vars/g": "k: beside\n", "host_vars/a": "k: host\n"}
    yield {"hosts": "[g]\na\n[g:vars]\nk=g\n", "group_vars/all": "k: all\n"}
    yield {"hosts": "[g]\na\n", "group_vars/all/b.yml": "k: b\n", "group_vars/all/a.yml": "k: a\nj: a\n"}
    yield {
        "hosts": "[g]\na\n",
        "group_vars/g/x.txt": "k: txt\n",
        "group_vars/g/y~": "k: old\n",
        "group_vars/g/z": "k: z\n",
    }
    yield {
        "hosts": "[g]\na\n",
        "group_vars/g/b/1.yml": "k: 1\n",
        "group_vars/g/a/2.yml": "k: 2\n",
        "group_vars/g/.h": "k: 3\n",
    }
    yield {
        "hosts": "[g]\na\n",
        "group_vars/g/b.yml": "k: b\n",
        "group_vars/g/b/c.yml": "k: c\n",
        "group_vars/g/a.d/x": "k: d\n",
    }
    yield {
        "hosts": "[g]\na\n",
        "group_vars/g.yml": "k: yml\n",
        "group_vars/g.yaml": "k: yaml\n",
        "group_vars/g.json": "{}",
    }
    yield {"hosts": "[g]\na\n", "group_vars/g": "k: none\n", "group_vars/g.yml": "k: yml\n"}
    yield {"hosts": "a\n", "host_vars/a": "---\n# nothing\n", "group_vars/ungrouped": "k: u\n"}
    yield {"hosts": "[g]\na\n", "group_vars/g.yml": "ansible_group_priority: 5\nk: 1\n"}
    yield {"hosts": "[g]\na\n[h]\na\n", "group_vars/g.yml": "k: g\n", "group_vars/h.yml": "k: h\n"}
    yield {"hosts": "[g]\na\n", "group_vars/g": ""}


def odd_bytes() -> Iterator[Files]:
    yield {"hosts": b"[web]\na # caf\xc3\xa9\nb k=\xc3\xa9\n"}
    yield {"hosts.yml": b"all: {hosts: {a: {k: \xc3\xa9}}} # \xc3\xa9\n"}
    yield {"hosts": b"# caf\xe9\n[web]\na k=1\n"}
    yield {"hosts": b"[web]\na k=caf\xe9 ansible_user=ann\nb\n"}
    yield {"hosts.yml": b"\xef\xbb\xbfall: {hosts: {a: }}\n"}


def refused() -> Iterator[Files]:
    for text in (
        *("[a b]\nx\n", "[a:b]\n", "x y\n", "[a:children]\nnone\n", "x[01:100]\n", "x 'a=b\n", "[g:vars]\nk=1\n"),
        *("[a]\nx\n[a:children]\nb\n[b:children]\na\n", "[g]\na\n[g:vars]\nnothing\n", "a:\n"),
    ):  # fmt: skip
        yield {"hosts": text}
    for text in ("all: [", "- a\n", "all: {hosts: [a]}\n", "all: {vars: [a]}\n", "", "all: {vars: {d: 2026-13-01}}\n"):
        yield {"hosts.yml": text}
    yield {"x:hosts": "#!/bin/sh\nexit 3\n"}
    yield {"x:hosts": "#!/bin/sh\necho hello\n"}
    yield {"hosts": SCRIPT}
    yield {"hosts.yml": b"all: {hosts: {a: {k: caf\xe9}}}\n"}


STRICTER: dict[str, Files] = {
    "a range that runs backwards": {"hosts": "x[3:1]\n"},
    "a group that is a number": {"x:hosts": "#!/bin/sh\necho '{\"g\": 5}'\n"},
    "an unknown key": {"hosts.yml": "all: {host: {a: }}\n"},
    "a second file that can't be read": {"inventory/a": "a\n", "inventory/b": "[a b]\n"},
}
"""Ansible warns, and reads the rest. dstack refuses them, because it would remove the runners that it misses."""
