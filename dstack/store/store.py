"""All that the server knows: the tables, and the files beside the database."""

from __future__ import annotations

from dstack.model.paths import ServerLayout
from dstack.store.database import Database
from dstack.store.logs import Logs
from dstack.store.restored import Newest, Restoration
from dstack.store.tables.contents import BucketContents, KnownObjects, PulledImages, RetainedArtifacts
from dstack.store.tables.damaged import DamagedRecords
from dstack.store.tables.events import EventLog
from dstack.store.tables.identity import Identity
from dstack.store.tables.jobs import CacheKeys, Jobs
from dstack.store.tables.metrics import Metrics
from dstack.store.tables.notify import NotifyTargets, Outbox
from dstack.store.tables.run_list import RunList
from dstack.store.tables.runners import Registrations, Runners
from dstack.store.tables.runs import Runs, Tags
from dstack.store.tables.sessions import Sessions
from dstack.store.tables.settings import Secrets, Settings
from dstack.store.tables.sweeps import Sweeps
from dstack.store.tables.tokens import Tokens
from dstack.store.tables.triggers import Triggers


class Store:
    """The server's state. The server's event loop is the only writer, so methods are synchronous and take well under a
    millisecond."""

    def __init__(self, layout: ServerLayout) -> None:
        for folder in (layout.home, layout.state, layout.logs, layout.mirrors, layout.incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.database = Database(layout.database)
        self.damaged = DamagedRecords(self.database)
        self.events = EventLog(self.database)
        self.runs = Runs(self.database, self.events)
        self.run_list = RunList(self.database)
        self.jobs = Jobs(self.database, self.events)
        self.cache_keys = CacheKeys(self.database)
        self.retained_artifacts = RetainedArtifacts(self.database)
        self.registrations = Registrations(self.database, self.events)
        self.runners = Runners(self.database, self.events)
        self.secrets = Secrets(self.database, self.events, layout.secret_key)
        self.settings = Settings(self.database, self.events)
        self.tokens = Tokens(self.database, self.events)
        self.sessions = Sessions(self.database, self.events)
        self.notify_targets = NotifyTargets(self.database, self.events, self.secrets)
        self.outbox = Outbox(self.database, self.events, self.notify_targets, self.settings)
        newest = Newest(layout.newest)
        newest.check(self.database, self.settings)
        self.database.noted = newest.note
        self.restoration = Restoration(self.settings, self.jobs, self.runners)
        self.identity = Identity(self.database, self.settings, layout.server_id)
        self.known_objects = KnownObjects(self.database)
        self.bucket_contents = BucketContents(self.database)
        self.pulled_images = PulledImages(self.database)
        self.tags = Tags(self.database, self.events)
        self.triggers = Triggers(self.database, self.events)
        self.logs = Logs(layout)
        self.metrics = Metrics(self.database, self.events)
        self.sweeps = Sweeps(self.database, self.events)

    def hand_over(self, old: str, new: str) -> None:
        """Make everything that is recorded to be on one runner be on another one, which has the same folder."""
        with self.database.transaction():
            for job in self.jobs.unfinished():
                if job.runner == old:
                    self.jobs.change(job.id, runner=new)
            for job in self.jobs.to_discard(old):
                self.jobs.change(job.id, runner=new)
            self.retained_artifacts.hand_over(old, new)
            self.known_objects.hand_over(old, new)
            self.pulled_images.hand_over(old, new)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
