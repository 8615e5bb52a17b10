-- Reading. Every statement selects the columns of model.EventRow, in its order; the plain reads of one stream leave out the
-- last two, "stream" and "number", which the reader knows.

-- name: read_forward
-- The fast path, one round trip: a plain stream's own events. Gives no row when the stream is missing, deleted or has
-- links; the caller then asks why (stream_state).
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version"
FROM "headwater"."events"
WHERE "stream" = %(stream)s AND "version" >= %(start)s
    AND (SELECT "deleted_at" IS NULL AND NOT "has_links" FROM "headwater"."streams" WHERE "name" = %(stream)s)
ORDER BY "version" LIMIT %(limit)s;

-- name: read_backward
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version"
FROM "headwater"."events"
WHERE "stream" = %(stream)s AND "version" <= %(start)s
    AND (SELECT "deleted_at" IS NULL AND NOT "has_links" FROM "headwater"."streams" WHERE "name" = %(stream)s)
ORDER BY "version" DESC LIMIT %(limit)s;

-- name: stream_state
SELECT "version", "deleted_at" IS NOT NULL, "has_links", "stream_id" FROM "headwater"."streams" WHERE "name" = %(stream)s;

-- name: read_linked_forward
-- A stream with links: its own events and the ones it links to, each under its number in this stream.
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "number"
FROM (
    (
        SELECT "event".*, "event"."version" AS "number" FROM "headwater"."events" AS "event"
        WHERE "event"."stream" = %(stream)s AND "event"."version" >= %(start)s
        ORDER BY "event"."version" LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT "event".*, "link"."version" AS "number"
        FROM "headwater"."links" AS "link" JOIN "headwater"."events" AS "event" USING ("position")
        WHERE "link"."stream" = %(stream)s AND "link"."version" >= %(start)s
        ORDER BY "link"."version" LIMIT %(limit)s
    )
) AS "both"
ORDER BY "number" LIMIT %(limit)s;

-- name: read_linked_backward
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "number"
FROM (
    (
        SELECT "event".*, "event"."version" AS "number" FROM "headwater"."events" AS "event"
        WHERE "event"."stream" = %(stream)s AND "event"."version" <= %(start)s
        ORDER BY "event"."version" DESC LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT "event".*, "link"."version" AS "number"
        FROM "headwater"."links" AS "link" JOIN "headwater"."events" AS "event" USING ("position")
        WHERE "link"."stream" = %(stream)s AND "link"."version" <= %(start)s
        ORDER BY "link"."version" DESC LIMIT %(limit)s
    )
) AS "both"
ORDER BY "number" DESC LIMIT %(limit)s;

-- name: read_all_forward
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "position" AS "number"
FROM "headwater"."events"
WHERE "position" >= %(start)s ORDER BY "position" LIMIT %(limit)s;

-- name: read_all_backward
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "position" AS "number"
FROM "headwater"."events"
WHERE "position" <= %(start)s ORDER BY "position" DESC LIMIT %(limit)s;

-- name: head
SELECT "position" FROM "headwater"."head";

-- name: read_window
-- What matches a filter among a bounded run of positions, so that a rare match never makes one statement scan a store.
-- A null parameter does not restrict.
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "position" AS "number"
FROM "headwater"."events"
WHERE "position" > %(after)s::bigint AND "position" <= %(to)s::bigint
    AND (%(types)s::text[] IS NULL OR "type" = ANY (%(types)s::text[]))
    AND (%(streams)s::text[] IS NULL OR "stream" = ANY (%(streams)s::text[]))
    AND (%(categories)s::text[] IS NULL OR split_part("stream", '-', 1) = ANY (%(categories)s::text[]))
    AND (%(prefix)s::text IS NULL OR starts_with("stream", %(prefix)s::text))
    AND (%(tags)s::text[] IS NULL OR "tags" @> %(tags)s::text[])
    AND (%(since)s::timestamptz IS NULL OR "created_at" >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR "created_at" < %(until)s::timestamptz)
ORDER BY "position" LIMIT %(limit)s;

-- name: read_window_backward
SELECT
    "position", "version", "event_id", "type", "data", "metadata",
    "causation_id", "correlation_id", "created_at", "tags", "schema_version", "stream", "position" AS "number"
FROM "headwater"."events"
WHERE "position" > %(after)s::bigint AND "position" <= %(to)s::bigint
    AND (%(types)s::text[] IS NULL OR "type" = ANY (%(types)s::text[]))
    AND (%(streams)s::text[] IS NULL OR "stream" = ANY (%(streams)s::text[]))
    AND (%(categories)s::text[] IS NULL OR split_part("stream", '-', 1) = ANY (%(categories)s::text[]))
    AND (%(prefix)s::text IS NULL OR starts_with("stream", %(prefix)s::text))
    AND (%(tags)s::text[] IS NULL OR "tags" @> %(tags)s::text[])
    AND (%(since)s::timestamptz IS NULL OR "created_at" >= %(since)s::timestamptz)
    AND (%(until)s::timestamptz IS NULL OR "created_at" < %(until)s::timestamptz)
ORDER BY "position" DESC LIMIT %(limit)s;

-- name: position_at
SELECT "headwater"."position_at_v1"(%(when)s);

-- name: wait_for_append
-- Waits until a session opens its gate, which it does when it appends, and then for the end of what it is appending; sent
-- together with the read that comes after it. Fails with lock_not_available when either takes longer.
SELECT
    set_config('lock_timeout', %(begin_ms)s::text, true),
    pg_advisory_xact_lock_shared('"headwater"."streams"'::regclass::oid::integer, %(gate)s::integer),
    set_config('lock_timeout', %(end_ms)s::text, true),
    pg_advisory_xact_lock_shared('"headwater"."head"'::regclass::oid::integer, %(session)s::integer);
