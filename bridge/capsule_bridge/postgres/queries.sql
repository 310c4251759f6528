-- Each query is introduced by its name. Columns of promises come in the order of `rows.Row`. All tables are those of the
-- store's own schema, which is the connection's search path.

-- name: server
SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'),
       current_setting('synchronous_commit'), current_setting('server_encoding'), pg_is_in_recovery();

-- name: commit_synchronously
SELECT set_config('synchronous_commit', 'on', false);

-- name: tables
SELECT c.relname FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE s.nspname = $1 AND c.relkind IN ('r', 'v', 'm', 'p', 'f');

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1);

-- name: lock_schema
SELECT pg_advisory_xact_lock(hashtextextended('capsule schema ' || $1, 0));

-- name: create_marker
CREATE TABLE capsule_schema (version integer NOT NULL);

-- name: schema_version
SELECT coalesce(max(version), 0) FROM capsule_schema;

-- name: mark_version
INSERT INTO capsule_schema VALUES ($1);

-- name: lock_promises
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises WHERE id = ANY ($1::text[])
ORDER BY n FOR UPDATE;

-- name: lock_requests
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises
WHERE n IN (
    SELECT n FROM promises WHERE id = ANY ($1::text[])
    UNION
    SELECT p.n FROM unnest($2::text[], $3::text[], $4::text[]) AS r (principal, session, key)
    JOIN promises p ON p.principal = r.principal AND p.session = r.session AND p.key = r.key
)
ORDER BY n FOR UPDATE;

-- name: lock_descendants
WITH RECURSIVE below (n, id) AS (
    SELECT n, id FROM promises WHERE state = 'pending' AND parent = ANY ($1::text[])
    UNION
    SELECT p.n, p.id FROM below b JOIN promises p ON p.parent = b.id AND p.state = 'pending'
)
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises WHERE n IN (SELECT n FROM below)
ORDER BY n FOR UPDATE;

-- name: lock_due
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises WHERE state = 'pending' AND timeout_at <= $1
ORDER BY timeout_at LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: ends_of_logs
SELECT w.n, (SELECT max(sequence) FROM events e WHERE e.promise = w.n) FROM unnest($1::bigint[]) AS w (n);

-- name: parts_of_logs
SELECT e.promise, e.sequence, e.data FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (n, after, upto)
JOIN events e ON e.promise = w.n AND e.sequence > w.after AND e.sequence <= w.upto;

-- name: insert_promises
INSERT INTO promises (n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state,
                      value, epoch, version, started_at, settled_at, trimmed, has_children)
SELECT * FROM (
    SELECT nextval('promises_n'), w.* FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::bigint[],
        $10::bigint[], $11::text[], $12::bytea[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[],
        $17::bigint[], $18::boolean[]
    ) AS w (id)
) AS numbered
ORDER BY id
ON CONFLICT DO NOTHING
RETURNING n, id;

-- name: write_changes
-- What has changed of promises, new events, and what is told of both, in one round trip. The notifications are counted,
-- because nobody would read them otherwise.
WITH logged AS (
    INSERT INTO events (promise, sequence, data) SELECT * FROM unnest($11::bigint[], $12::bigint[], $13::bytea[])
), changed AS (
    UPDATE promises p
    SET state = w.state, value = w.value, epoch = w.epoch, version = w.version, started_at = w.started_at,
        settled_at = w.settled_at, has_children = w.has_children
    FROM unnest(
        $3::bigint[], $4::text[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::boolean[]
    ) AS w (n, state, value, epoch, version, started_at, settled_at, has_children)
    WHERE p.n = w.n
)
SELECT count(pg_notify($1, t.payload)) FROM unnest($2::text[]) AS t (payload);

-- name: trim_logs
WITH trimmed AS (
    UPDATE promises p SET trimmed = w.upto FROM unnest($1::bigint[], $2::bigint[]) AS w (n, upto) WHERE p.n = w.n
)
DELETE FROM events e USING unnest($1::bigint[], $2::bigint[]) AS w (n, upto) WHERE e.promise = w.n AND e.sequence <= w.upto;

-- name: bury_promises
UPDATE promises SET buried_until = $3, fingerprint = '', param = '', value = '', trimmed = 0
WHERE n IN (
    SELECT n FROM promises WHERE settled_at <= $1 AND buried_until IS NULL
    ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING n, id;

-- name: delete_logs
DELETE FROM events WHERE promise = ANY ($1::bigint[]);

-- name: delete_tombstones
DELETE FROM promises
WHERE n IN (
    SELECT n FROM promises WHERE buried_until <= $1 ORDER BY buried_until LIMIT $2 FOR UPDATE SKIP LOCKED
);

-- name: promise_by_id
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises WHERE id = $1;

-- name: pending_promises
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, trimmed, has_children, buried_until
FROM promises
WHERE state = 'pending' AND n > $1 AND (timeout_at IS NULL OR timeout_at > $2) AND ($3::text IS NULL OR session = $3)
ORDER BY n LIMIT $4;

-- name: log_behind
SELECT p.trimmed, p.buried_until, (SELECT max(sequence) FROM events WHERE promise = p.n) AS last, e.sequence, e.data
FROM promises p LEFT JOIN LATERAL (
    SELECT sequence, data FROM (
        SELECT sequence, data,
               sum(octet_length(data)) OVER (ORDER BY sequence ROWS UNBOUNDED PRECEDING) - octet_length(data) AS size
        FROM events WHERE promise = p.n AND sequence > $2 ORDER BY sequence LIMIT $3
    ) AS counted
    WHERE size < $4
) AS e ON true
WHERE p.id = $1
ORDER BY e.sequence;

-- name: settled_among
SELECT id FROM promises WHERE id = ANY ($1::text[]) AND state <> 'pending';

-- name: acquire_lease
INSERT INTO leases AS l (name, owner, version, until)
VALUES ($1, $2, nextval('lease_versions'), clock_timestamp() + $3::interval)
-- The number is taken again here, when the row is locked: one taken before it might be lower than that of an owner between.
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, version = nextval('lease_versions'), until = clock_timestamp() + $3::interval
WHERE l.owner = excluded.owner OR l.until <= clock_timestamp()
RETURNING version;

-- name: renew_lease
UPDATE leases SET until = clock_timestamp() + $3::interval WHERE name = $1 AND version = $2 RETURNING version;

-- name: release_lease
DELETE FROM leases WHERE name = $1 AND version = $2;

-- name: lapsed_leases
SELECT name FROM leases WHERE until <= clock_timestamp() AND starts_with(name, $1) ORDER BY until;

-- name: delete_leases
DELETE FROM leases WHERE until <= clock_timestamp() - interval '1 day';
