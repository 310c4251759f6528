-- Each query is introduced by its name. Unlike those of the store itself these may look at all rows.

-- name: states
SELECT state, count(*) FROM promises GROUP BY state;

-- name: oldest_pending
SELECT min(created_at) FROM promises WHERE state = 'pending';

-- name: count_events
SELECT count(*) FROM events;

-- name: count_tombstones
SELECT count(*) FROM tombstones;

-- name: schema
SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%';

-- name: lost_parents
SELECT id FROM promises
WHERE parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM promises AS p WHERE p.id = promises.parent)
      AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.id = promises.parent);

-- name: left_children
SELECT id FROM promises
WHERE state = 'pending' AND parent IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM promises AS p WHERE p.id = promises.parent AND p.state = 'pending');

-- name: lost_events
SELECT DISTINCT 'number ' || promise FROM events
WHERE NOT EXISTS (SELECT 1 FROM promises WHERE n = events.promise);

-- name: gaps
SELECT id FROM promises JOIN (
    SELECT promise, min(sequence) AS first, max(sequence) AS last, count(*) AS number FROM events GROUP BY promise
) ON promise = n
WHERE first != trimmed + 1 OR number != last - first + 1;

-- name: twice
SELECT id FROM promises WHERE EXISTS (SELECT 1 FROM tombstones WHERE tombstones.id = promises.id);

-- name: files
SELECT param_file AS file, id FROM promises WHERE param_file IS NOT NULL
UNION ALL SELECT value_file, id FROM promises WHERE value_file IS NOT NULL
UNION ALL SELECT data_file, (SELECT id FROM promises WHERE n = promise) FROM events WHERE data_file IS NOT NULL;

-- name: promises_between
SELECT n, id, kind, session, principal, key, parent, state, fingerprint, param, param_file, value, value_file,
       timeout_at, created_at, started_at, settled_at, epoch, version, trimmed + 1 AS first_event,
       coalesce((SELECT max(sequence) FROM events WHERE promise = n), trimmed) AS last_event
FROM promises WHERE n > ? AND n <= ? ORDER BY n LIMIT ?;

-- name: promises_alone
SELECT n, id, kind, session, principal, key, parent, state, fingerprint, param, param_file, value, value_file,
       timeout_at, created_at, started_at, settled_at, epoch, version, trimmed + 1 AS first_event, NULL AS last_event
FROM promises WHERE n > ? AND n <= ? ORDER BY n LIMIT ?;

-- name: last_promise
SELECT max(n) FROM promises;

-- name: last_pending_promise
SELECT max(n) FROM promises WHERE state = 'pending';

-- name: last_settled_promise
SELECT max(n) FROM promises WHERE settled_at IS NOT NULL;

-- name: events_between
SELECT sequence, data, data_file FROM events WHERE promise = ? AND sequence > ? AND sequence <= ?
ORDER BY sequence LIMIT ?;

-- name: tombstones_behind
SELECT id, principal, session, key, until FROM tombstones WHERE id > ? ORDER BY id LIMIT ?;

-- name: tombstones_before
SELECT id, principal, session, key, until FROM tombstones WHERE id > ? AND id < ? ORDER BY id DESC LIMIT ?;
