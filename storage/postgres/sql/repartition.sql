-- The change of the number of partitions: the old set out, the new set in, in one transaction of the supervisor's.

-- name: repartition_wanted
SELECT "name" FROM "headwater"."subscriptions" WHERE "repartition_to" IS NOT NULL ORDER BY "subscription_id";

-- name: repartition_obstacles
-- What belongs to single partitions and would go with them: replacements, replays, rewinds that are not through.
SELECT
    "s"."partitions", bool_or("p"."closed"), min("old"."name"), min("new"."name"),
    EXISTS (
        SELECT FROM "headwater"."commands" AS "c"
        WHERE "c"."subscription_id" = "s"."subscription_id" AND "c"."applied_at" IS NULL AND "c"."verb" = 'replay'
    ),
    EXISTS (
        SELECT FROM "headwater"."commands" AS "c"
        WHERE "c"."subscription_id" = "s"."subscription_id" AND "c"."applied_at" IS NULL AND "c"."verb" = 'rewind'
    ),
    max("p"."replay_to") FILTER (WHERE "p"."replay_to" > "p"."checkpoint")
FROM "headwater"."subscriptions" AS "s"
JOIN "headwater"."partitions" AS "p" USING ("subscription_id")
LEFT JOIN "headwater"."partitions" AS "followed" ON "followed"."lock_id" = "p"."follows"
LEFT JOIN "headwater"."subscriptions" AS "old" ON "old"."subscription_id" = "followed"."subscription_id"
LEFT JOIN "headwater"."partitions" AS "follower" ON "follower"."follows" = "p"."lock_id"
LEFT JOIN "headwater"."subscriptions" AS "new" ON "new"."subscription_id" = "follower"."subscription_id"
WHERE "s"."name" = %(name)s
GROUP BY "s"."subscription_id";

-- name: keep_partitions
-- Before anything is asked of single partitions. A statement of its own, so that the next one sees those that there are
-- when the lock is held.
SELECT "name", "repartition_to"
FROM "headwater"."subscriptions"
WHERE "name" = ANY (%(names)s::text[])
ORDER BY "subscription_id"
FOR NO KEY UPDATE;

-- name: unpassed_seams
-- The highest mark of earlier sets, as long as a partition for which they count is below it.
SELECT "s"."name", "marks"."end"
FROM "headwater"."subscriptions" AS "s"
CROSS JOIN LATERAL (
    SELECT max("number"::bigint) AS "end"
    FROM json_array_elements("s"."seam") AS "mark", json_array_elements_text("mark" -> 1) AS "number"
) AS "marks"
WHERE "s"."name" = ANY (%(names)s::text[]) AND EXISTS (
    SELECT FROM "headwater"."partitions" AS "p"
    WHERE "p"."subscription_id" = "s"."subscription_id" AND "p"."seamed" AND "p"."checkpoint" < "marks"."end"
);

-- name: repartition_begin
-- Nobody else changes it meanwhile; no row when it is done, taken back, or being done by another supervisor.
SELECT "subscription_id", "repartition_to", "partition_by", "options" ->> 'partition_by', "seam"
FROM "headwater"."subscriptions"
WHERE "name" = %(name)s AND "repartition_to" IS NOT NULL
FOR UPDATE SKIP LOCKED;

-- name: repartition_locks
-- The leases of the old set, for the length of this transaction: false while somebody holds one, and nobody gets one now.
SELECT "lock_id", pg_try_advisory_xact_lock('"headwater"."partitions"'::regclass::oid::integer, "lock_id")
FROM "headwater"."partitions"
WHERE "subscription_id" = %(subscription_id)s
ORDER BY "partition";

-- name: repartition_old
-- Asked after the locks are held, so that it sees the last save of every owner. A row that is still locked, by a handler's
-- transaction that is just being ended, is missing here: then it is tried again later.
SELECT "checkpoint", "in_flight_to", "attempt", "stream_id", "seamed"
FROM "headwater"."partitions"
WHERE "subscription_id" = %(subscription_id)s
ORDER BY "partition"
FOR UPDATE SKIP LOCKED;

-- name: repartition_replace
-- Whoever still thinks it owns an old partition writes nothing any more: its epoch names no row. The totals go on in the
-- first of the new ones. Where one was stopped until an operator resumes it, all of the new ones are: any of them may go on with it.
WITH "old" AS (
    DELETE FROM "headwater"."partitions" WHERE "subscription_id" = %(subscription_id)s
    RETURNING "delivered", "redelivered", "parked", "halted", "halt_reason", "halted_at"
)
SELECT
    coalesce(sum("delivered"), 0)::bigint, coalesce(sum("redelivered"), 0)::bigint, coalesce(sum("parked"), 0)::bigint,
    (array_agg("halted" ORDER BY "halted_at") FILTER (WHERE "halted" IS NOT NULL))[1],
    (array_agg("halt_reason" ORDER BY "halted_at") FILTER (WHERE "halted" IS NOT NULL))[1],
    -- Also of what was resumed and has not gone on yet: attempts count anew then.
    coalesce(min("halted_at") FILTER (WHERE "halted" IS NOT NULL), min("halted_at"))
FROM "old";

-- name: repartition_new
INSERT INTO "headwater"."partitions" (
    "subscription_id", "partition", "checkpoint", "in_flight_to", "attempt", "stream_id", "seamed", "delivered",
    "redelivered", "parked", "halted", "halt_reason", "halted_at"
)
SELECT
    %(subscription_id)s, "new"."number" - 1, "new"."checkpoint", "new"."in_flight_to", "new"."attempt",
    "new"."stream_id", "new"."seamed",
    CASE WHEN "new"."number" = 1 THEN %(delivered)s::bigint ELSE 0 END,
    CASE WHEN "new"."number" = 1 THEN %(redelivered)s::bigint ELSE 0 END,
    CASE WHEN "new"."number" = 1 THEN %(parked)s::bigint ELSE 0 END,
    %(halted)s::text, %(halt_reason)s::text, %(halted_at)s::timestamptz
FROM unnest(
    %(checkpoints)s::bigint[], %(in_flight_to)s::bigint[], %(attempts)s::integer[], %(stream_ids)s::bigint[],
    %(seamed)s::boolean[]
) WITH ORDINALITY AS "new" ("checkpoint", "in_flight_to", "attempt", "stream_id", "seamed", "number");

-- name: repartition_parked
SELECT "position", "partition_key"
FROM "headwater"."parked_events"
WHERE "subscription_id" = %(subscription_id)s AND "status" IN ('parked', 'retrying');

-- name: repartition_move_parked
UPDATE "headwater"."parked_events" AS "e"
SET "partition" = "new"."partition"
FROM unnest(%(positions)s::bigint[], %(partitions)s::integer[]) AS "new" ("position", "partition")
WHERE "e"."subscription_id" = %(subscription_id)s
    AND "e"."position" = "new"."position"
    AND "e"."partition" <> "new"."partition";

-- name: repartition_take_back
-- Everything stays as it is, what the options say too: the present partitions are split by that.
WITH "changed" AS (
    UPDATE "headwater"."subscriptions"
    SET
        "repartition_to" = NULL,
        "repartition_since" = NULL,
        "options" = (
            "options"::jsonb || jsonb_build_object('partitions', "partitions", 'partition_by', "partition_by")
        )::json
    WHERE "subscription_id" = %(subscription_id)s
)
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at", "outcome")
VALUES (%(subscription_id)s, 'repartition', %(arguments)s, 'supervisor', clock_timestamp(), %(outcome)s)
RETURNING pg_notify('headwater_news', 'wanted');

-- name: repartition_end
-- What was asked of the old partitions ends here: who resumes finds that new owners have begun, who moves has to say which
-- of the new ones. No rewind and no replay can be among it. The change itself goes into the audit.
WITH "changed" AS (
    UPDATE "headwater"."subscriptions"
    SET
        "partitions" = "repartition_to",
        "partition_by" = "options" ->> 'partition_by',
        "repartition_to" = NULL,
        "repartition_since" = NULL,
        "seam" = %(seam)s
    WHERE "subscription_id" = %(subscription_id)s
), "closed" AS (
    UPDATE "headwater"."commands"
    SET
        "applied_at" = clock_timestamp(),
        "outcome" = CASE
            WHEN "verb" = 'resume' THEN 'resumed: the new partitions begin as running'
            ELSE 'not done: the partitions were changed before'
        END
    WHERE "subscription_id" = %(subscription_id)s AND "applied_at" IS NULL
)
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at", "outcome")
VALUES (%(subscription_id)s, 'repartition', %(arguments)s, 'supervisor', clock_timestamp(), %(outcome)s);

-- name: repartition_audit
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at", "outcome")
SELECT "subscription_id", 'repartition', %(arguments)s, %(issued_by)s, clock_timestamp(), 'asked for'
FROM "headwater"."subscriptions"
WHERE "name" = %(name)s;
