"""Registers triggers: checks a request, compares it with what is known, and records it."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from dstack.engine.triggers.zone import local_zone
from dstack.errors import ConflictError, ForbiddenError, UsageError
from dstack.mirror.remote import host_of
from dstack.model.api.tokens import Role
from dstack.model.api.triggers import ApplyTriggers, TriggerChange
from dstack.model.job.ticks import Remote, Template, TriggerRecord
from dstack.model.project.checks.triggers import refusal
from dstack.model.project.workflow import Trigger
from dstack.model.text.units import rfc3339
from dstack.server.roles import admins_only, caller, require_commands
from dstack.store.store import Store

MOST = 10_000
"""How many triggers a server has."""
REPO = re.compile("[A-Za-z0-9_-]{1,64}")


def check(wish: ApplyTriggers) -> None:
    """Raise UsageError for triggers that can't work, and ForbiddenError for a remote that the caller may not name."""
    if not REPO.fullmatch(wish.repo):
        raise UsageError("the id of the triggers' repository is not one word")
    if {"", ".", "..", ".git"} & set(wish.project.split("/") if wish.project else ()):
        raise UsageError("the triggers' project is not a path inside the repository")
    for trigger in wish.triggers:
        if trouble := refusal(trigger):
            raise UsageError(trouble)
        if trigger.branch is None and not wish.dry_run:
            check_template(wish, trigger)
        elif trigger.branch is not None and wish.url is None:
            hint = "add a remote (git remote add origin URL), or write `code: snapshot`"
            raise UsageError(f"trigger '{trigger.name}' runs a branch, but the repository has no remote", hint=hint)
    if wish.url is not None and any(trigger.branch for trigger in wish.triggers):
        check_remote(wish.url, wish.key)


def check_template(wish: ApplyTriggers, trigger: Trigger) -> None:
    names = {workflow.name for workflow in wish.workflows.get(trigger.name, ())}
    if wish.snapshot is None or trigger.workflow not in names or names - wish.variables.get(trigger.name, {}).keys():
        raise UsageError(f"the request lacks the code or the definitions of trigger '{trigger.name}'")
    if wish.snapshot.repo != wish.repo:
        raise UsageError("the snapshot is that of another repository")


def check_remote(url: str, key: str | None) -> None:
    """Raise an error for a remote that git would take for a command, or that the caller may not make the server read:
    its own files and ports, and what only the logins of its user open."""
    host = host_of(url)
    if host is None:
        hint = "write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH"
        raise UsageError(f"{url!r} is not the URL of a remote that the server can fetch", hint=hint)
    if not host:
        require_commands(f"the repository {url} on the server's machine")
    elif own(host):
        require_commands(f"{host}, the server's own machine,")
    if key is not None:
        require_commands(f"the key file {key} of the server's machine")
    if caller().role is Role.MEMBER and not url.startswith(("https://", "http://")):
        raise ForbiddenError(
            f"{url} needs the login of the server's user, which triggers of members don't get",
            hint="use an https URL, with --token SECRET if it is private; or ask an admin to apply the triggers",
        )


def own(host: str) -> bool:
    """Whether a name or address is that of this machine itself, or of its link."""
    if host.lower().rstrip(".") == "localhost" or host.lower().rstrip(".").endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.isdigit() or host.lower().startswith("0x")  # other ways to write an IPv4 address
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified)


def require_own_trigger(record: TriggerRecord) -> None:
    """Raise ForbiddenError if the trigger is another person's and the caller is a member."""
    if caller().role is Role.MEMBER and record.owner != caller().name:
        raise admins_only(caller(), f"change {record.name}, a trigger of {record.owner}")


class TriggerApplication:
    """One request to apply triggers. `changes` are what it does, in the order of the file."""

    def __init__(self, store: Store, wish: ApplyTriggers) -> None:
        self.store, self.wish = store, wish
        self.owner = caller().name or wish.user
        self.known = {record.name: record for record in store.triggers.all()}
        self.wanted = [self.record(trigger) for trigger in wish.triggers]
        gone = [name for name, record in self.known.items() if wish.source and record.source == wish.source]
        self.removed = [name for name in gone if name not in {record.name for record in self.wanted}]
        for name in (*self.removed, *(record.name for record in self.wanted if record.name in self.known)):
            require_own_trigger(self.known[name])
        self.changes = [self.change(record) for record in self.wanted]
        self.changes += [TriggerChange(name=name, do="remove") for name in self.removed]

    def record(self, trigger: Trigger) -> TriggerRecord:
        """Return the record of a trigger. Raises ConflictError if another file, or a person, has its name."""
        wish, before = self.wish, self.known.get(trigger.name)
        if before and (before.source != wish.source or wish.source is None):
            where = f"it comes from {before.source}" if before.source else "it was added by hand"
            hint = f"choose another name, or remove that one: dstack triggers remove {trigger.name}"
            raise ConflictError(f"a trigger named '{trigger.name}' already exists; {where}", hint=hint)
        now = time.time()
        trusted = caller().role is not Role.MEMBER
        remote = Remote(url=wish.url, key=wish.key, token=wish.token, trusted=trusted) if wish.url else None
        fresh = TriggerRecord(
            name=trigger.name,
            uid=secrets.token_hex(8),
            owner=self.owner,
            definition=trigger,
            timezone=trigger.timezone or local_zone(),
            repo=wish.repo,
            project=wish.project,
            object_format=wish.object_format,
            remote=remote if trigger.branch else None,
            template=None if trigger.branch else self.template(trigger),
            source=wish.source,
            applied_at=rfc3339(now),
            position=now,
        )
        if before is None:
            return fresh
        same_schedule = (before.definition.cron, before.timezone) == (trigger.cron, fresh.timezone)
        same_branch = before.remote == fresh.remote and before.definition.branch == trigger.branch
        return replace(
            fresh,
            uid=before.uid,
            owner=before.owner,
            position=before.position if same_schedule else now,
            seen=before.seen if same_branch else None,
            failures=before.failures,
            paused=before.paused,
        )

    def template(self, trigger: Trigger) -> Template | None:
        wish = self.wish
        if wish.snapshot is None:
            return None
        workflows, variables = wish.workflows.get(trigger.name, ()), wish.variables.get(trigger.name, {})
        return Template(snapshot=wish.snapshot, workflows=workflows, variables=variables)

    def change(self, record: TriggerRecord) -> TriggerChange:
        before = self.known.get(record.name)
        if before is None:
            return TriggerChange(name=record.name, do="add")
        differences = [*compared(settings(before), settings(record))]
        return TriggerChange(name=record.name, do="change" if differences else "keep", differences=differences)

    def apply(self) -> None:
        """Record all of it at once."""
        if len(self.known) + len(self.wanted) - len(self.removed) > MOST:
            raise UsageError(f"the server would have more than {MOST:,} triggers")
        with self.store.database.transaction():
            for record, change in zip(self.wanted, self.changes, strict=False):
                if change.do != "keep":
                    self.store.triggers.put(record, "trigger.added" if change.do == "add" else "trigger.changed")
            for name in self.removed:
                self.store.triggers.remove(name)


def settings(record: TriggerRecord) -> dict[str, Any]:
    """Return what people can set of a trigger, as text that can be compared and shown."""
    found: dict[str, Any] = {
        name: value for name, value in msgspec.to_builtins(record.definition).items() if name != "name"
    }
    found |= {"timezone": record.timezone, "project": record.project or "."}
    if record.remote:
        found |= {"url": record.remote.url, "key": record.remote.key, "token": record.remote.token}
    if record.template:
        found["snapshot"] = record.template.snapshot.tree[:12]
        found["definitions"] = hash_of(record.template)
    return found


def hash_of(template: Template) -> str:
    import hashlib

    encoded = msgspec.json.encode([template.workflows, template.variables])
    return hashlib.sha256(encoded).hexdigest()[:12]


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys((*before, *after))
    return [
        f"{name}: {written(before.get(name))} -> {written(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def written(value: Any) -> str:
    return "default" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
