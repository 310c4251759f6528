-- Each query is introduced by its name. Columns of promises come in the order in which `rows.Rows` takes them.
-- `insert_promises`, `update_promises` and `insert_events` are for one row of parameters or for several.

-- name: promise_by_id
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises WHERE id = ?;

-- name: promises_of_request
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises WHERE id = ? OR (principal = ? AND session = ? AND key = ?);

-- name: log_by_id
SELECT n, trimmed, coalesce((SELECT max(sequence) FROM events WHERE promise = n), trimmed), state, epoch, version
FROM promises WHERE id = ?;

-- name: pending_children
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises WHERE state = 'pending' AND parent = ?;

-- name: due_promises
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises WHERE state = 'pending' AND timeout_at <= ? ORDER BY timeout_at LIMIT ?;

-- name: pending_promises
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises
WHERE state = 'pending' AND n > :after AND (timeout_at IS NULL OR timeout_at > :now)
      AND (:session IS NULL OR session = :session)
ORDER BY n LIMIT :limit;

-- name: old_promises
SELECT n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state, value,
       epoch, version, started_at, settled_at, param_file, value_file
FROM promises WHERE settled_at <= ? ORDER BY settled_at LIMIT ?;

-- name: insert_promises
INSERT INTO promises (n, id, kind, session, fingerprint, param, principal, key, parent, timeout_at, created_at, state,
                      value, epoch, version, started_at, settled_at, param_file)
SELECT * FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) AS new
WHERE NOT EXISTS (SELECT 1 FROM tombstones
                  WHERE id = new.column2
                        OR (principal = new.column7 AND session = new.column4 AND key = new.column8))
ON CONFLICT DO NOTHING;

-- name: last_promise
SELECT coalesce(max(n), 0) FROM promises;

-- name: update_promises
UPDATE promises
SET state = new.column1, value = new.column2, epoch = new.column3, version = new.column4, started_at = new.column5,
    settled_at = new.column6, value_file = new.column7
FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?)) AS new WHERE n = new.column8;

-- name: delete_promise
DELETE FROM promises WHERE n = ?;

-- name: events_behind
SELECT sequence, data, data_file FROM events WHERE promise = ? AND sequence > ? ORDER BY sequence LIMIT ?;

-- name: insert_events
INSERT INTO events (promise, sequence, data, data_file) VALUES (?, ?, ?, ?);

-- name: event_files
SELECT data_file FROM events WHERE promise = ? AND sequence <= ? AND data_file IS NOT NULL;

-- name: delete_events
DELETE FROM events WHERE promise = ? AND sequence <= ?;

-- name: set_trimmed
UPDATE promises SET trimmed = ? WHERE n = ?;

-- name: tombstone_of_id
SELECT 1 FROM tombstones WHERE id = ?;

-- name: tombstones_of_request
SELECT id FROM tombstones WHERE id = ? OR (principal = ? AND session = ? AND key = ?);

-- name: insert_tombstone
INSERT INTO tombstones (id, principal, session, key, until) VALUES (?, ?, ?, ?, ?);

-- name: delete_tombstones
DELETE FROM tombstones WHERE until <= ?;

-- name: all_files
SELECT param_file FROM promises WHERE param_file IS NOT NULL
UNION ALL SELECT value_file FROM promises WHERE value_file IS NOT NULL
UNION ALL SELECT data_file FROM events WHERE data_file IS NOT NULL;
