-- Appending: the call that writes, and the look-up that tells a repeated append from a duplicate.

-- name: append
-- One round trip, and a transaction of its own on a connection in autocommit.
SELECT "versions_before", "positions_before", "outcomes" FROM "headwater"."append_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_event
-- The same for one event at the present time: what a lone writer sends. Null when it was refused.
SELECT "headwater"."append_event_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_event_past_gate
-- Before, the session says that it appends, by a lock until its end, shuts the gate at which readers will wait for its next
-- append, and opens the one at which they wait for this. Whether a lock was obtained does not matter: an append waits for
-- no reader.
SELECT "headwater"."append_event_v1"(
    CASE WHEN pg_try_advisory_xact_lock('"headwater"."head"'::regclass::oid::integer, pg_backend_pid()) IS NOT NULL
        AND pg_try_advisory_lock('"headwater"."streams"'::regclass::oid::integer, %(shut)s::integer) IS NOT NULL
        AND (%(opened)s::integer IS NULL
            OR pg_advisory_unlock('"headwater"."streams"'::regclass::oid::integer, %(opened)s::integer) IS NOT NULL)
        THEN %s::text END,
    %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_events
-- For many such events, each to a stream of its own.
SELECT "headwater"."append_events_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_one
-- For one append that brings no times.
SELECT ARRAY["version_before"], ARRAY["position_before"], ARRAY["outcome"] FROM "headwater"."append_one_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_one_past_gate
SELECT ARRAY["version_before"], ARRAY["position_before"], ARRAY["outcome"] FROM "headwater"."append_one_v1"(
    CASE WHEN pg_try_advisory_xact_lock('"headwater"."head"'::regclass::oid::integer, pg_backend_pid()) IS NOT NULL
        AND pg_try_advisory_lock('"headwater"."streams"'::regclass::oid::integer, %(shut)s::integer) IS NOT NULL
        AND (%(opened)s::integer IS NULL
            OR pg_advisory_unlock('"headwater"."streams"'::regclass::oid::integer, %(opened)s::integer) IS NOT NULL)
        THEN %s::text END,
    %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: open_gates
-- Opens whatever gate the session has shut.
SELECT pg_advisory_unlock('"headwater"."streams"'::regclass::oid::integer, "objid"::bigint::bit(32)::integer)
FROM pg_locks
WHERE "locktype" = 'advisory' AND "pid" = pg_backend_pid()
    AND "classid" = '"headwater"."streams"'::regclass AND "objsubid" = 2;

-- name: stored_places
-- Where events stand that are stored already. Asked only after an append was refused.
SELECT "event_id", "stream", "version", "position" FROM "headwater"."events" WHERE "event_id" = ANY (%s);

-- name: append_if
SELECT "versions_before", "positions_before", "outcomes", "conflict" FROM "headwater"."append_if_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: append_at_commit
-- Notes an append that the caller's COMMIT will write.
INSERT INTO "headwater"."appends_at_commit" (
    "streams", "stream_of", "expected", "counts", "units", "append_of", "ids", "types", "data", "metadata",
    "causations", "correlations", "tags", "schema_versions", "times"
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: import_begin
SELECT "position_before", "versions_before", "present" FROM "headwater"."begin_import_v1"(%s, %s, %s, %s, %s);

-- name: import_copy
-- In the order in which a row is put together: what is mostly null comes last.
COPY "headwater"."events" (
    "position", "stream", "version", "event_id", "type", "data", "created_at", "metadata", "causation_id",
    "correlation_id", "tags", "schema_version"
) FROM STDIN (FORMAT binary);

-- name: import_copy_tags
COPY "headwater"."event_tags" ("tag", "position") FROM STDIN (FORMAT binary);
