-- Stores whose events are kept in ranges of positions. A statement named ..._partitioned takes the place of its namesake.

-- name: is_partitioned
SELECT coalesce((SELECT "relkind" = 'p' FROM pg_class WHERE "oid" = to_regclass('"headwater"."events"')), false);

-- name: try_ranges_lock
-- Held by the session: one process at a time converts, archives or restores.
SELECT pg_try_advisory_lock(hashtextextended('headwater ranges of "headwater"', 0));

-- name: leave_ranges
SELECT pg_advisory_unlock(hashtextextended('headwater ranges of "headwater"', 0));

-- name: stored_places_partitioned
-- An archived event has its place here, too; one that was erased in the archive has an id but no place.
SELECT
    "id"."event_id",
    CASE WHEN "event"."position" IS NOT NULL THEN "event"."stream" WHEN NOT EXISTS (
        SELECT FROM "headwater"."archived_erasures" AS "erased" WHERE "erased"."stream" = "archived"."stream"
            AND "id"."version" < "erased"."before_version" AND "id"."position" <= "erased"."up_to_position"
    ) THEN "archived"."stream" END,
    "id"."version", "id"."position"
FROM "headwater"."event_ids" AS "id"
LEFT JOIN "headwater"."events" AS "event" ON "event"."position" = "id"."position"
LEFT JOIN "headwater"."ranges" AS "range"
    ON "event"."position" IS NULL AND "id"."position" BETWEEN "range"."first_position" AND "range"."last_position"
LEFT JOIN "headwater"."archived_streams" AS "archived"
    ON "archived"."first_position" = "range"."first_position" AND "archived"."stream_hash" = "id"."stream_hash"
WHERE "id"."event_id" = ANY (%s);

-- name: append_if_partitioned
SELECT "versions_before", "positions_before", "outcomes", "conflict" FROM "headwater"."append_if_partitioned_v1"(
    %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: link_partitioned
SELECT "version", "outcome", "culprit" FROM "headwater"."link_partitioned_v1"(%(stream)s, %(expected)s, %(ids)s);

-- name: stream_number_before_partitioned
-- As its namesake, as far as the stream's events of that time are here; otherwise an error says so.
SELECT
    min("number") - 1,
    (SELECT "headwater"."refuse_archived_v1"("last_position") FROM "headwater"."ranges" AS "range"
     WHERE "archived_at" IS NOT NULL AND "last_time" >= %(time)s AND (
        EXISTS (
            SELECT FROM "headwater"."archived_streams" AS "s"
            WHERE "s"."stream" = %(source)s AND "s"."first_position" = "range"."first_position"
        ) OR EXISTS (
            SELECT FROM "headwater"."links" AS "l" WHERE "l"."stream" = %(source)s
                AND "l"."position" BETWEEN "range"."first_position" AND "range"."last_position"
        )
    ) LIMIT 1)
FROM (
    (SELECT "version" AS "number" FROM "headwater"."events"
     WHERE "stream" = %(source)s AND "created_at" >= %(time)s
     ORDER BY "version" LIMIT 1)
    UNION ALL
    (SELECT "l"."version" FROM "headwater"."links" AS "l" JOIN "headwater"."events" AS "e" USING ("position")
     WHERE "l"."stream" = %(source)s AND "e"."created_at" >= %(time)s
     ORDER BY "l"."version" LIMIT 1)
) AS "later";

-- name: partitioning_state
SELECT "size", "ids_to", "first_range_to", "partitioned_at", "unaware_readers" FROM "headwater"."partitioning";

-- name: begin_partitioning
SELECT "headwater"."begin_partitioning_v1"(%(size)s);

-- name: copy_ids
-- Locks the events against deletion, so that a delete forgets an id after it was copied and not before.
WITH "batch" AS MATERIALIZED (
    SELECT "event_id", "position", "version", "stream" FROM "headwater"."events"
    WHERE "position" > %(after)s AND "position" <= %(to)s FOR KEY SHARE
), "copied" AS (
    INSERT INTO "headwater"."event_ids" ("event_id", "position", "version", "stream_hash")
    SELECT "event_id", "position", "version", hashtextextended("stream", 0) FROM "batch"
    ON CONFLICT DO NOTHING
)
UPDATE "headwater"."partitioning" SET "ids_to" = %(to)s;

-- name: bound_first_range
SELECT "headwater"."bound_first_range_v1"(%(room)s);

-- name: validate_first_range
ALTER TABLE "headwater"."events" VALIDATE CONSTRAINT "in_range";

-- name: partition_events
SELECT "headwater"."partition_events_v1"();

-- name: cover_head
-- Makes what ranges are missing, ahead of need; the head's row is locked as an append would.
WITH "order" AS MATERIALIZED (SELECT "position" FROM "headwater"."head" FOR UPDATE)
SELECT "headwater"."cover_v1"("position") FROM "order";

-- name: list_ranges
SELECT
    "first_position", "last_position", "table_name", "changes", "archived_at", "file", "manifest_sha256", "events",
    "first_time", "last_time"
FROM "headwater"."ranges" ORDER BY "first_position";
