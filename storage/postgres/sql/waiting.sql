-- Reading one's own write from a read model: has a subscription settled everything up to a position?

-- name: subscription_standing
-- One row for each partition. Of a single stream the checkpoint counts versions: what has to be settled then is its last
-- event, or link to an event, that stands at or before the position. While the head has not reached the position,
-- more may still come, and nothing is settled.
SELECT
    "p"."partition", "p"."checkpoint", "s"."source", "t"."deleted_at" IS NOT NULL AS "deleted",
    CASE WHEN "s"."source" = '$all' THEN %(position)s::bigint ELSE greatest(
        coalesce((SELECT "e"."version" FROM "headwater"."events" AS "e"
         WHERE "e"."stream" = "s"."source" AND "e"."position" <= %(position)s
         ORDER BY "e"."version" DESC LIMIT 1), 0),
        coalesce((SELECT "l"."version" FROM "headwater"."links" AS "l"
         WHERE "l"."stream" = "s"."source" AND "l"."position" <= %(position)s
         ORDER BY "l"."version" DESC LIMIT 1), 0)
    ) END AS "target",
    "s"."source" = '$all' OR "p"."stream_id" IS NULL OR "p"."stream_id" IS NOT DISTINCT FROM "t"."stream_id"
        AS "same_stream",
    "h"."position" >= %(position)s AS "reached"
FROM "headwater"."partitions" AS "p"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
CROSS JOIN "headwater"."head" AS "h"
LEFT JOIN "headwater"."streams" AS "t" ON "t"."name" = "s"."source"
WHERE "s"."name" = %(name)s
ORDER BY "p"."partition";

-- name: partition_trouble
-- What a partition last said it was doing, as long as somebody owns it; and how far it is behind its source.
SELECT
    CASE WHEN "lock"."objid" IS NOT NULL THEN "p"."phase" WHEN "s"."wanted" = 'stopped' THEN 'stopped' ELSE 'unowned' END,
    CASE
        WHEN "lock"."objid" IS NOT NULL OR "p"."closed" THEN "p"."reason"
        WHEN "s"."wanted" = 'stopped' THEN 'stopped ' || coalesce("s"."wanted_why", 'by an operator')
        WHEN "s"."handler" = '' THEN 'no program pulls it'
        ELSE 'no host holds its lease'
    END,
    greatest(
        CASE WHEN "s"."source" = '$all' THEN "h"."position" ELSE coalesce("t"."version", 0) END - "p"."checkpoint", 0
    )
FROM "headwater"."partitions" AS "p"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
CROSS JOIN "headwater"."head" AS "h"
LEFT JOIN "headwater"."streams" AS "t" ON "t"."name" = "s"."source"
LEFT JOIN pg_locks AS "lock"
    ON "lock"."locktype" = 'advisory'
    AND "lock"."granted"
    AND "lock"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
    AND "lock"."classid" = '"headwater"."partitions"'::regclass
    AND "lock"."objid"::integer = "p"."lock_id"
    AND "lock"."objsubid" = 2
WHERE "s"."name" = %(name)s AND "p"."partition" = %(partition)s;
