-- Times are milliseconds since 1970. A large value is in a file of its own, named in the column beside it.
CREATE TABLE promises (
    n           INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    session     TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    param       BLOB,
    param_file  TEXT,
    principal   TEXT NOT NULL,
    key         TEXT,
    parent      TEXT,
    timeout_at  INTEGER,
    created_at  INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'resolved', 'rejected', 'rejected_canceled', 'rejected_timedout')),
    value       BLOB,
    value_file  TEXT,
    epoch       INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    started_at  INTEGER,
    settled_at  INTEGER,
    trimmed     INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'pending') = (settled_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX promises_key ON promises (principal, session, key) WHERE key IS NOT NULL;
CREATE INDEX promises_pending ON promises (n) WHERE state = 'pending';
CREATE INDEX promises_due ON promises (timeout_at) WHERE state = 'pending' AND timeout_at IS NOT NULL;
CREATE INDEX promises_children ON promises (parent) WHERE state = 'pending' AND parent IS NOT NULL;
CREATE INDEX promises_settled ON promises (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX promises_files ON promises (n) WHERE param_file IS NOT NULL OR value_file IS NOT NULL;

CREATE TABLE events (
    promise   INTEGER NOT NULL,
    sequence  INTEGER NOT NULL,
    data      BLOB,
    data_file TEXT,
    PRIMARY KEY (promise, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX events_files ON events (promise, sequence) WHERE data_file IS NOT NULL;

-- What is remembered of promises that are kept no longer.
CREATE TABLE tombstones (
    id        TEXT NOT NULL PRIMARY KEY,
    principal TEXT NOT NULL,
    session   TEXT NOT NULL,
    key       TEXT,
    until     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX tombstones_key ON tombstones (principal, session, key) WHERE key IS NOT NULL;
CREATE INDEX tombstones_until ON tombstones (until);
