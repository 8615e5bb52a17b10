-- Ranges that went into files, and what is known of them here.

-- name: restores
-- How often a range came back; no mark of it is left then.
SELECT "restores" FROM "headwater"."partitioning";

-- name: archived_ranges
-- The archived ranges are the oldest: what is in none of them is in the database.
SELECT
    "first_position", "last_position", "table_name", "changes", "archived_at", "file", "manifest_sha256", "events",
    "first_time", "last_time"
FROM "headwater"."ranges"
WHERE "archived_at" IS NOT NULL AND "last_position" >= %(low)s AND "first_position" <= %(high)s
ORDER BY "first_position";

-- name: archived_since
-- The first archived range that has an event of a time or of a later one.
SELECT "first_position", "last_position" FROM "headwater"."ranges"
WHERE "archived_at" IS NOT NULL AND "last_time" >= %(when)s ORDER BY "first_position" LIMIT 1;

-- name: archived_stream
-- Between which positions a stream's own events of certain versions are archived; no row when none are.
SELECT min("s"."lowest_position"), max("s"."highest_position")
FROM "headwater"."archived_streams" AS "s" JOIN "headwater"."ranges" AS "range" USING ("first_position")
WHERE "s"."stream" = %(stream)s AND "range"."archived_at" IS NOT NULL
    AND "s"."last_version" >= %(low)s AND "s"."first_version" <= %(high)s
HAVING count(*) > 0;

-- name: archived_links
SELECT "version", "position" FROM "headwater"."links"
WHERE "stream" = %(stream)s AND "version" >= %(low)s AND "version" <= %(high)s
    AND "position" <= (SELECT max("last_position") FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL)
ORDER BY "version" LIMIT %(limit)s;

-- name: archived_links_backward
SELECT "version", "position" FROM "headwater"."links"
WHERE "stream" = %(stream)s AND "version" >= %(low)s AND "version" <= %(high)s
    AND "position" <= (SELECT max("last_position") FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL)
ORDER BY "version" DESC LIMIT %(limit)s;

-- name: archived_erasures
SELECT "stream", "before_version", "up_to_position" FROM "headwater"."archived_erasures";

-- name: read_range
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "position" AS "number"
FROM "headwater"."events"
WHERE "position" >= %(start)s AND "position" <= %(last)s ORDER BY "position" LIMIT %(limit)s;

-- name: forget_archived_streams
DELETE FROM "headwater"."archived_streams" WHERE "first_position" = %(first)s;

-- name: note_archived_streams
INSERT INTO "headwater"."archived_streams" (
    "stream", "first_position", "first_version", "last_version", "lowest_position", "highest_position", "stream_hash"
)
SELECT
    "stream", %(first)s, min("version"), max("version"), min("position"), max("position"), hashtextextended("stream", 0)
FROM "headwater"."events" WHERE "position" >= %(first)s AND "position" <= %(last)s GROUP BY "stream";

-- name: archive_range
SELECT "headwater"."archive_range_v1"(
    %(first)s, %(changes)s, %(file)s, %(manifest_sha256)s, %(events)s, %(first_time)s, %(last_time)s);

-- name: range_tables
-- How the tables of archived ranges stand: still a part of the events (false), detached by half (true), or apart (null).
SELECT "range"."table_name", "part"."inhdetachpending"
FROM "headwater"."ranges" AS "range"
JOIN pg_class AS "table" ON "table"."relname" = "range"."table_name"
    AND "table"."relnamespace" = (SELECT "oid" FROM pg_namespace WHERE "nspname" = %(schema)s)
LEFT JOIN pg_inherits AS "part" ON "part"."inhrelid" = "table"."oid"
WHERE "range"."archived_at" IS NOT NULL;

-- name: make_range
SELECT "headwater"."make_range_v1"(%(first)s, %(last)s);

-- name: begin_restore
-- For the transaction in which a range comes back: nobody waits for long behind the locks that it asks for, and what was
-- deleted meanwhile may be removed from the range's table, by its index: nothing is known yet of how many rows it has.
SELECT
    set_config('lock_timeout', '500ms', true), set_config('headwater.allow_change', 'on', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true);

-- name: lock_order
-- From here on nothing is deleted, and what was is known.
SELECT FROM "headwater"."head" FOR UPDATE;

-- name: restore_range
SELECT "headwater"."restore_range_v1"(%(first)s);

-- name: forget_archived
SELECT "headwater"."forget_archived_v1"(%(positions)s);

-- name: replace_archive_file
UPDATE "headwater"."ranges" SET "file" = %(file)s, "manifest_sha256" = %(manifest_sha256)s, "events" = %(events)s,
    "first_time" = %(first_time)s, "last_time" = %(last_time)s
WHERE "first_position" = %(first)s AND "archived_at" IS NOT NULL;

-- name: settle_erasures
DELETE FROM "headwater"."archived_erasures" WHERE "erasure_id" <= %(last)s;

-- name: last_erasure
SELECT coalesce(max("erasure_id"), 0) FROM "headwater"."archived_erasures";

-- name: readers_restarted
UPDATE "headwater"."partitioning" SET "unaware_readers" = false;
