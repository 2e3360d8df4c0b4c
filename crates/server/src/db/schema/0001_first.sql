-- The first schema. Times are microseconds since 1970 in UTC; columns named `*_json` hold words of
-- the protocol as JSON text; ids are UUIDs as text.

CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    mover TEXT NOT NULL,
    version TEXT,
    seen BIGINT
);

CREATE TABLE repositories (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    host TEXT NOT NULL REFERENCES hosts (id),
    location_json TEXT NOT NULL,
    encrypted BIGINT NOT NULL,
    password_sealed BLOB,
    -- 0 until it was opened and has said its own id: rows of failed attempts are removed.
    identified BIGINT NOT NULL DEFAULT 0,
    capacity BIGINT NOT NULL DEFAULT 0,
    free BIGINT NOT NULL DEFAULT 0,
    stored BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    repository TEXT NOT NULL REFERENCES repositories (id),
    settings_json TEXT NOT NULL,
    created BIGINT NOT NULL,
    next_run BIGINT
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    kind_json TEXT NOT NULL,
    order_json TEXT,
    job TEXT,
    repository TEXT,
    name TEXT NOT NULL,
    initiator TEXT NOT NULL,
    state TEXT NOT NULL,
    state_json TEXT NOT NULL,
    final BIGINT NOT NULL DEFAULT 0,
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    counters_json TEXT NOT NULL,
    outcome_json TEXT,
    pid BIGINT,
    stop_json TEXT
);
CREATE INDEX sessions_by_time ON sessions (created);
CREATE INDEX sessions_by_job ON sessions (job, created);
CREATE INDEX sessions_at_work ON sessions (final);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position BIGINT NOT NULL,
    name TEXT NOT NULL,
    state_json TEXT NOT NULL,
    counters_json TEXT NOT NULL
);
CREATE INDEX tasks_by_session ON tasks (session, position);

CREATE TABLE log_lines (
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    -- The writer of the line: the server's own lines have `server`, a manager's its process id,
    -- and the number that writer gave it, so that a line said twice is kept once.
    writer TEXT NOT NULL,
    writer_number BIGINT NOT NULL,
    time BIGINT NOT NULL,
    level TEXT NOT NULL,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (session, number),
    UNIQUE (session, writer, writer_number)
);

CREATE TABLE points (
    id TEXT PRIMARY KEY,
    repository TEXT NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    machine TEXT NOT NULL,
    machine_name TEXT NOT NULL,
    job TEXT,
    created BIGINT NOT NULL,
    point_json TEXT NOT NULL
);
CREATE INDEX points_by_machine ON points (machine, created);
CREATE INDEX points_by_repository ON points (repository, created);

CREATE TABLE machines (
    host TEXT NOT NULL,
    platform TEXT NOT NULL,
    platform_id TEXT NOT NULL,
    machine TEXT NOT NULL,
    name TEXT NOT NULL,
    found_json TEXT NOT NULL,
    seen BIGINT NOT NULL,
    PRIMARY KEY (host, platform, platform_id)
);

CREATE TABLE leases (
    resource TEXT NOT NULL,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    slot BIGINT NOT NULL,
    PRIMARY KEY (resource, slot)
);
CREATE INDEX leases_by_session ON leases (session);
