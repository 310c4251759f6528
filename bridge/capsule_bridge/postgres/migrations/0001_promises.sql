-- Times of promises are milliseconds since 1970, by the clocks of the nodes; those of leases are by the database's clock.
CREATE TABLE promises (
    n            bigint PRIMARY KEY,
    id           text COLLATE "C" NOT NULL UNIQUE,
    kind         text COLLATE "C" NOT NULL,
    session      text COLLATE "C" NOT NULL,
    fingerprint  bytea NOT NULL,
    param        bytea NOT NULL,
    principal    text COLLATE "C" NOT NULL,
    key          text COLLATE "C",
    parent       text COLLATE "C",
    timeout_at   bigint,
    created_at   bigint NOT NULL,
    state        text COLLATE "C" NOT NULL
                 CHECK (state IN ('pending', 'resolved', 'rejected', 'rejected_canceled', 'rejected_timedout')),
    value        bytea NOT NULL,
    epoch        bigint NOT NULL,
    version      bigint NOT NULL,
    started_at   bigint,
    settled_at   bigint,
    trimmed      bigint NOT NULL DEFAULT 0,
    -- Whether it ever had children. It is written with the first one, so whoever locks the row later sees it.
    has_children boolean NOT NULL,
    -- A promise that is kept no longer leaves its row as a tombstone until then: so ids and keys stay unique by one index
    -- each, and no other node can make a promise between the going of the one and the coming of the other.
    buried_until bigint,
    CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK (buried_until IS NULL OR state <> 'pending')
);

-- Numbers are given before rows are written, because rows are written in the order of their ids.
CREATE SEQUENCE promises_n OWNED BY promises.n;

CREATE UNIQUE INDEX promises_key ON promises (principal, session, key) WHERE key IS NOT NULL;
CREATE INDEX promises_pending ON promises (n) WHERE state = 'pending';
CREATE INDEX promises_due ON promises (timeout_at) WHERE state = 'pending' AND timeout_at IS NOT NULL;
CREATE INDEX promises_children ON promises (parent) WHERE state = 'pending' AND parent IS NOT NULL;
CREATE INDEX promises_settled ON promises (settled_at) WHERE settled_at IS NOT NULL AND buried_until IS NULL;
CREATE INDEX promises_buried ON promises (buried_until) WHERE buried_until IS NOT NULL;

CREATE TABLE events (
    promise  bigint NOT NULL,
    sequence bigint NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (promise, sequence)
);

CREATE TABLE leases (
    name    text COLLATE "C" PRIMARY KEY,
    owner   text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    until   timestamptz NOT NULL
);

-- One for all names, so that a lease's row can go and versions still only grow.
CREATE SEQUENCE lease_versions;
