-- The wanted state: what should run, and how it stands.

-- name: find_subscription
SELECT
    "name", "handler", "source", "options", "partitions", "wanted", "created_at", "updated_at", "repartition_to",
    "wanted_why"
FROM "headwater"."subscriptions"
WHERE "name" = %(name)s;

-- name: list_subscriptions
SELECT
    "name", "handler", "source", "options", "partitions", "wanted", "created_at", "updated_at", "repartition_to",
    "wanted_why"
FROM "headwater"."subscriptions"
ORDER BY "name";

-- name: register_subscription
-- What the checkpoints count in cannot change: another source gives no row. A name that is there keeps its checkpoints;
-- another number of partitions, or another key that several of them are split by, is noted as wanted, and is taken back by
-- registering what there is. What they are split by is read from the options, so that no caller can say one without the
-- other.
WITH "registered" AS (
    INSERT INTO "headwater"."subscriptions" AS "s" (
        "name", "handler", "source", "options", "partitions", "partition_by", "wanted"
    )
    VALUES (
        %(name)s, %(handler)s, %(source)s, %(options)s::json, %(partitions)s, %(options)s::json ->> 'partition_by',
        %(wanted)s
    )
    ON CONFLICT ("name") DO UPDATE SET
        "handler" = excluded."handler",
        "options" = excluded."options",
        "partition_by" = CASE
            WHEN "s"."partitions" = 1 AND excluded."partitions" = 1 THEN excluded."partition_by"
            ELSE "s"."partition_by"
        END,
        "repartition_to" = CASE
            WHEN "s"."partitions" = excluded."partitions"
                AND ("s"."partitions" = 1 OR "s"."partition_by" IS NOT DISTINCT FROM excluded."partition_by")
            THEN NULL ELSE excluded."partitions"
        END,
        "repartition_since" = CASE
            WHEN "s"."partitions" = excluded."partitions"
                AND ("s"."partitions" = 1 OR "s"."partition_by" IS NOT DISTINCT FROM excluded."partition_by")
            THEN NULL ELSE coalesce("s"."repartition_since", clock_timestamp())
        END,
        "updated_at" = CASE
            WHEN "s"."handler" = excluded."handler" AND "s"."options"::jsonb = excluded."options"::jsonb
            THEN "s"."updated_at" ELSE clock_timestamp()
        END
    WHERE "s"."source" = excluded."source"
    RETURNING "subscription_id", "partitions", "repartition_to"
), "added" AS (
    INSERT INTO "headwater"."partitions" ("subscription_id", "partition", "checkpoint", "stream_id")
    SELECT "subscription_id", "number", %(checkpoint)s, %(stream_id)s::bigint
    FROM "registered", generate_series(0, "partitions" - 1) AS "number"
    ON CONFLICT ("subscription_id", "partition") DO NOTHING
)
SELECT "subscription_id", "repartition_to" FROM "registered";

-- name: delete_subscription
-- Everything of it goes along. Whoever still runs it writes nothing any more: its epoch names no row. A replacement that is
-- under way would be lost with it, and the other version stay as it is.
DELETE FROM "headwater"."subscriptions" AS "s"
WHERE "s"."name" = %(name)s
    AND NOT EXISTS (
        SELECT FROM "headwater"."replacements" AS "r"
        WHERE "s"."subscription_id" IN ("r"."old_id", "r"."new_id") AND "r"."phase" IN ('catching up', 'taking over')
    )
RETURNING "subscription_id", pg_notify('headwater_news', 'wanted');

-- name: stream_start
-- Where the source stream ends now, and which incarnation that is.
SELECT "version", "stream_id", "deleted_at" IS NOT NULL FROM "headwater"."streams" WHERE "name" = %(source)s;

-- name: stream_number_before
-- The number before the stream's first event, or link to an event, that was created at or after a time.
SELECT min("number") - 1
FROM (
    (SELECT "version" AS "number" FROM "headwater"."events"
     WHERE "stream" = %(source)s AND "created_at" >= %(time)s
     ORDER BY "version" LIMIT 1)
    UNION ALL
    (SELECT "l"."version" FROM "headwater"."links" AS "l" JOIN "headwater"."events" AS "e" USING ("position")
     WHERE "l"."stream" = %(source)s AND "e"."created_at" >= %(time)s
     ORDER BY "l"."version" LIMIT 1)
) AS "later";

-- name: set_wanted
-- The state and its audit row are written together; whoever owns the partitions sees the state. One that was replaced stays
-- as it is.
WITH "changed" AS (
    UPDATE "headwater"."subscriptions"
    SET
        "wanted" = %(wanted)s,
        "wanted_why" = CASE WHEN %(wanted)s <> 'running' THEN
            'by ' || %(issued_by)s || ' at ' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
            || coalesce(': ' || nullif(%(reason)s::text, ''), '')
        END,
        "updated_at" = clock_timestamp()
    WHERE "name" = %(name)s AND NOT EXISTS (
        SELECT FROM "headwater"."partitions" AS "p"
        WHERE "p"."subscription_id" = "subscriptions"."subscription_id" AND "p"."closed"
    )
    RETURNING "subscription_id"
)
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at", "outcome")
SELECT "subscription_id", %(verb)s, %(arguments)s, %(issued_by)s, clock_timestamp(), 'wanted state is ' || %(wanted)s
FROM "changed"
RETURNING "command_id", pg_notify('headwater_news', 'wanted');

-- name: partition_states
-- Every partition with its owner, as long as somebody holds its lock, and with its lag: in events, and as the age of the
-- first event behind the checkpoint. A closed partition has no more to handle, and no lag. What is parked now is counted up to a
-- limit: to count a million of them took half a second.
SELECT
    "s"."name", "p"."partition", "p"."lock_id", "s"."options", "s"."source", "s"."wanted",
    "p"."wanted_owner", "p"."wanted_standby",
    CASE WHEN "lock"."objid" IS NOT NULL THEN "p"."owner" END, "p"."standby", "p"."epoch",
    "p"."checkpoint", "at"."head", "at"."lag",
    CASE WHEN "at"."lag" > 0
        THEN extract(epoch FROM clock_timestamp() - coalesce("next"."created_at", clock_timestamp()))::float8 ELSE 0
    END,
    "p"."phase", "p"."reason", CASE WHEN "p"."halted" IS NOT NULL THEN "p"."halted_at" ELSE "p"."since" END,
    "p"."granted_at", "p"."checkpointed_at",
    "p"."delivered", "p"."redelivered", "open"."parked", "p"."parked", "p"."closed",
    "s"."repartition_to", "p"."consumers", "s"."handler" = '', "open"."more", "s"."wanted_why",
    "p"."halted", "p"."halt_reason"
FROM "headwater"."partitions" AS "p"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
CROSS JOIN "headwater"."head" AS "h"
LEFT JOIN pg_locks AS "lock"
    ON "lock"."locktype" = 'advisory'
    AND "lock"."granted"
    AND "lock"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
    AND "lock"."classid" = '"headwater"."partitions"'::regclass
    AND "lock"."objid"::integer = "p"."lock_id"
    AND "lock"."objsubid" = 2
LEFT JOIN "headwater"."streams" AS "t" ON "t"."name" = "s"."source"
CROSS JOIN LATERAL (
    SELECT CASE WHEN "s"."source" = '$all' THEN "h"."position" ELSE coalesce("t"."version", 0) END AS "head"
) AS "source"
CROSS JOIN LATERAL (
    SELECT
        "source"."head", CASE WHEN "p"."closed" THEN 0 ELSE greatest("source"."head" - "p"."checkpoint", 0) END AS "lag"
) AS "at"
LEFT JOIN LATERAL (
    (SELECT "e"."created_at" FROM "headwater"."events" AS "e"
     WHERE "s"."source" = '$all' AND "e"."position" > "p"."checkpoint"
     ORDER BY "e"."position" LIMIT 1)
    UNION ALL
    (SELECT "e"."created_at" FROM "headwater"."events" AS "e"
     WHERE "e"."stream" = "s"."source" AND "e"."version" > "p"."checkpoint"
     ORDER BY "e"."version" LIMIT 1)
    UNION ALL
    (SELECT "e"."created_at"
     FROM "headwater"."links" AS "l" JOIN "headwater"."events" AS "e" ON "e"."position" = "l"."position"
     WHERE "l"."stream" = "s"."source" AND "l"."version" > "p"."checkpoint"
     ORDER BY "l"."version" LIMIT 1)
    LIMIT 1
) AS "next" ON true
CROSS JOIN LATERAL (
    SELECT least(count(*), %(most)s) AS "parked", count(*) > %(most)s AS "more"
    FROM (
        SELECT FROM "headwater"."parked_events" AS "e"
        WHERE "e"."subscription_id" = "p"."subscription_id" AND "e"."partition" = "p"."partition"
            AND "e"."status" IN ('parked', 'retrying')
        LIMIT %(most)s + 1
    ) AS "some"
) AS "open"
WHERE %(name)s::text IS NULL OR "s"."name" = %(name)s
ORDER BY "s"."name", "p"."partition";
