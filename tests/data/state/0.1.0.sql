-- The state of dstack 0.1.0 before sqlite-utils kept its migrations. The key of its secrets: 4TQ15vFph5GSw3tIsnwxHzXCmSKN56vwGiq1G3gz6VA=
BEGIN TRANSACTION;
CREATE TABLE contents (storage TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL, PRIMARY KEY (storage, key)) WITHOUT ROWID;
INSERT INTO "contents" VALUES('s3://bucket/runs','runs/a','sum',10,'etag');
CREATE TABLE given (job TEXT NOT NULL, value TEXT NOT NULL);
INSERT INTO "given" VALUES('bb','gAAAAABrDBRkI6ARBdsKshkFhsyX4dOXk59pGfL07_ncE1htoI_UbfBJsf0XI7FPX6AAgcsR0CMy8nX_L5JUzhxLJSqtUh1W9w==');
CREATE TABLE hidden_runs (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO "hidden_runs" VALUES('old-owl-2');
CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, run TEXT NOT NULL, workflow TEXT NOT NULL, status TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL);
INSERT INTO "jobs" VALUES(1,'aa','brave-otter-7','train','done','k','{"id":"aa","run":"brave-otter-7","workflow":"train","definition":{"name":"train","image":"busybox","commands":["true"]},"variables":{"shared":{},"own":{}},"image":"busybox","key":"k","why":"no earlier run","submitted_at":"2026-01-01T00:00:00.000Z","status":"done","reason":null,"exit_code":0,"cached_from":null,"shares":null,"dependencies":{},"runner":"lab1","gpus":[],"image_digest":null,"attempt":1,"launching":false,"launch":null,"stop":null,"end":null,"ending":null,"unreachable_since":null,"priority":0,"held":null,"placed_at":null,"expired":false,"warned":false,"cause":null,"preempted":null,"yielding":false,"history":[],"log_start":0,"started_at":null,"finished_at":"2026-01-01T00:00:00.000Z","files":2,"bytes":10,"discarded":false,"storages":[["/srv/artifacts",""]]}');
INSERT INTO "jobs" VALUES(2,'bb','calm-fox-1','train','running','k','{"id":"bb","run":"calm-fox-1","workflow":"train","definition":{"name":"train","image":"busybox","commands":["true"]},"variables":{"shared":{},"own":{}},"image":"busybox","key":"k","why":"no earlier run","submitted_at":"2026-01-01T00:00:00.000Z","status":"running","reason":null,"exit_code":null,"cached_from":null,"shares":null,"dependencies":{},"runner":"lab1","gpus":[0,1],"image_digest":null,"attempt":2,"launching":false,"launch":null,"stop":null,"end":null,"ending":null,"unreachable_since":null,"priority":0,"held":null,"placed_at":null,"expired":false,"warned":false,"cause":null,"preempted":null,"yielding":false,"history":[{"number":1,"status":"failed","exit_code":1,"reason":"x","runner":"lab1","gpus":[0],"started_at":"2026-01-01T00:00:00.000Z","finished_at":"2026-01-01T00:00:00.000Z","log_start":0,"log_end":5,"preempted":false}],"log_start":0,"started_at":null,"finished_at":null,"files":0,"bytes":0,"discarded":false,"storages":[]}');
INSERT INTO "jobs" VALUES(3,'cc','old-owl-2','train','done','k','{"id":"cc","run":"old-owl-2","workflow":"train","definition":{"name":"train","image":"busybox","commands":["true"]},"variables":{"shared":{},"own":{}},"image":"busybox","key":"k","why":"no earlier run","submitted_at":"2026-01-01T00:00:00.000Z","status":"done","reason":null,"exit_code":null,"cached_from":"aa","shares":null,"dependencies":{},"runner":null,"gpus":[],"image_digest":null,"attempt":1,"launching":false,"launch":null,"stop":null,"end":null,"ending":null,"unreachable_since":null,"priority":0,"held":null,"placed_at":null,"expired":false,"warned":false,"cause":null,"preempted":null,"yielding":false,"history":[],"log_start":0,"started_at":null,"finished_at":null,"files":0,"bytes":0,"discarded":false,"storages":[]}');
CREATE TABLE kept (job TEXT PRIMARY KEY, attempt TEXT NOT NULL, runner TEXT NOT NULL, since TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "kept" VALUES('aa','aa-1','lab1','2026-01-01T00:00:00.000Z');
CREATE TABLE keys (key TEXT PRIMARY KEY, components TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "keys" VALUES('k','{"image":"busybox"}');
CREATE TABLE pulled (runner TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (runner, image)) WITHOUT ROWID;
INSERT INTO "pulled" VALUES('lab1','busybox','sha256:1');
CREATE TABLE registration_tokens (hash TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO "registration_tokens" VALUES('hash-of-a-token');
CREATE TABLE registrations (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "registrations" VALUES('lab2','{"name":"lab2","user":"ann","address":"10.0.0.2","port":22,"host_keys":["ssh-ed25519 AAAA"],"secret":"hash","labels":[],"gpus":[],"root":null,"docker":null,"approved":true,"unavailable":null,"once":false,"interval":10.0}');
CREATE TABLE runners (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, data TEXT NOT NULL);
INSERT INTO "runners" VALUES(1,'lab1','{"name":"lab1","address":{"host":"lab1","user":"ann"},"labels":["a100"],"gpus":null,"max_jobs":null,"root":"~/.dstack-host","docker":"docker","host_key":null,"hidden":false,"drained":"maintenance","facts":null,"authorized":false,"source":null,"allow_mounts":[]}');
CREATE TABLE runs (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, workflow TEXT NOT NULL, user TEXT NOT NULL, data TEXT NOT NULL);
INSERT INTO "runs" VALUES(1,'brave-otter-7','train','ann','{"name":"brave-otter-7","workflow":"train","user":"ann","submitted_at":"2026-01-01T00:00:00.000Z","snapshot":{"repo":"r","tree":"t","commit":"c"},"variables":{"lr":"0.1"},"pin":null,"environment":{},"workflows":[{"name":"train","image":"busybox","commands":["true"]}],"inputs":{},"gpus":null,"timeout":null,"once":"key-brave-otter-7"}');
INSERT INTO "runs" VALUES(2,'calm-fox-1','train','ann','{"name":"calm-fox-1","workflow":"train","user":"ann","submitted_at":"2026-01-01T00:00:00.000Z","snapshot":{"repo":"r","tree":"t","commit":"c"},"variables":{"lr":"0.1"},"pin":null,"environment":{},"workflows":[{"name":"train","image":"busybox","commands":["true"]}],"inputs":{},"gpus":null,"timeout":null,"once":"key-calm-fox-1"}');
INSERT INTO "runs" VALUES(3,'old-owl-2','train','ann','{"name":"old-owl-2","workflow":"train","user":"ann","submitted_at":"2026-01-01T00:00:00.000Z","snapshot":{"repo":"r","tree":"t","commit":"c"},"variables":{"lr":"0.1"},"pin":null,"environment":{},"workflows":[{"name":"train","image":"busybox","commands":["true"]}],"inputs":{},"gpus":null,"timeout":null,"once":"key-old-owl-2"}');
CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL, set_at TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "secrets" VALUES('HF_TOKEN','gAAAAABrDBRkVlg49QZAQg4HoeL2q4KHTtZ-UfFgQMe6m_j2SO_9vOrf_XW5BARMw18CXlypFn06mXnkK0XUOGixamMa48r8lQ==','2026-01-01T00:00:00.000Z');
CREATE TABLE settings (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, value TEXT NOT NULL);
INSERT INTO "settings" VALUES(1,'server_id','0a1b2c3d');
INSERT INTO "settings" VALUES(2,'storage','s3://bucket/runs');
INSERT INTO "settings" VALUES(3,'max-gpus-per-user','8');
CREATE TABLE shipped (runner TEXT NOT NULL, repo TEXT NOT NULL, object TEXT NOT NULL, PRIMARY KEY (runner, repo, object)) WITHOUT ROWID;
INSERT INTO "shipped" VALUES('lab1','r','c');
INSERT INTO "shipped" VALUES('lab1','r','t');
CREATE TABLE tags (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "tags" VALUES('base','{"name":"base","run":"brave-otter-7","job":"aa","workflow":"train","created_at":"2026-01-01T00:00:00.000Z"}');
CREATE UNIQUE INDEX "idx_runs_name"
    ON "runs" ("name");
CREATE UNIQUE INDEX "idx_jobs_id"
    ON "jobs" ("id");
CREATE UNIQUE INDEX "idx_runners_name"
    ON "runners" ("name");
CREATE UNIQUE INDEX "idx_settings_name"
    ON "settings" ("name");
CREATE INDEX "idx_jobs_run"
    ON "jobs" ("run");
CREATE INDEX "idx_jobs_status"
    ON "jobs" ("status");
CREATE INDEX "idx_jobs_key"
    ON "jobs" ("key");
CREATE INDEX runs_by_key ON runs (json_extract(data, '$.once'));
CREATE INDEX contents_by_sum ON contents (storage, sha256, size);
CREATE INDEX "idx_given_job"
    ON "given" ("job");
CREATE INDEX jobs_by_source ON jobs (json_extract(data, '$.cached_from'));
CREATE INDEX kept_on ON kept (runner, since);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('runs',3);
INSERT INTO "sqlite_sequence" VALUES('jobs',3);
INSERT INTO "sqlite_sequence" VALUES('runners',1);
INSERT INTO "sqlite_sequence" VALUES('settings',3);
COMMIT;
PRAGMA user_version = 10;
