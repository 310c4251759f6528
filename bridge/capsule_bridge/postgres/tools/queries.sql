-- Each query is introduced by its name. Unlike those of the store itself these may look at all rows.

-- name: states
SELECT state, count(*) FROM promises WHERE buried_until IS NULL GROUP BY state;

-- name: oldest_pending
SELECT min(created_at) FROM promises WHERE state = 'pending';

-- name: count_events
SELECT count(*) FROM events;

-- name: count_tombstones
SELECT count(*) FROM promises WHERE buried_until IS NOT NULL;

-- name: nodes
SELECT substr(name, length($1) + 1), until > clock_timestamp() FROM leases WHERE starts_with(name, $1) ORDER BY name;

-- name: size
SELECT sum(pg_total_relation_size(c.oid))::bigint
FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace WHERE s.nspname = $1 AND c.relkind = 'r';

-- name: lost_parents
SELECT id FROM promises c
WHERE parent IS NOT NULL AND buried_until IS NULL AND NOT EXISTS (SELECT FROM promises p WHERE p.id = c.parent);

-- name: left_children
SELECT id FROM promises c
WHERE state = 'pending' AND parent IS NOT NULL
      AND NOT EXISTS (SELECT FROM promises p WHERE p.id = c.parent AND p.state = 'pending');

-- name: lost_events
SELECT DISTINCT 'number ' || promise FROM events e
WHERE NOT EXISTS (SELECT FROM promises p WHERE p.n = e.promise AND p.buried_until IS NULL);

-- name: gaps
SELECT p.id FROM promises p JOIN (
    SELECT promise, min(sequence) AS first, max(sequence) AS last, count(*) AS number FROM events GROUP BY promise
) AS e ON e.promise = p.n
WHERE e.first <> p.trimmed + 1 OR e.number <> e.last - e.first + 1;

-- name: all_promises
SELECT n, id, kind, session, principal, key, parent, state, fingerprint, param, value, timeout_at, created_at,
       started_at, settled_at, epoch, version, trimmed + 1 AS first_event,
       coalesce((SELECT max(sequence) FROM events WHERE promise = n), trimmed) AS last_event
FROM promises WHERE buried_until IS NULL ORDER BY n;

-- name: all_events
SELECT sequence, data FROM events WHERE promise = $1 ORDER BY sequence;

-- name: all_tombstones
SELECT id, principal, session, key, buried_until AS until FROM promises WHERE buried_until IS NOT NULL ORDER BY id;
