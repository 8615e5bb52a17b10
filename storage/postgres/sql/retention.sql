-- What a policy of retention would remove.

-- name: retention_plan
-- For each stream that is named, or is of a category: the lowest version that stays. By count, by age, or the higher of
-- both. By age: the first event, own or linked, that is young enough; one that may stand in an archived range counts as young
-- when the range has any that is. A stream that keeps all it has is not listed.
SELECT "stream"."name", "stream"."version", "stream"."truncated_before", "keep"."from", "stream"."stream_id"
FROM "headwater"."streams" AS "stream"
CROSS JOIN LATERAL (
    SELECT greatest(
        CASE WHEN %(max_count)s::bigint IS NOT NULL THEN "stream"."version" - %(max_count)s::bigint + 1 END,
        CASE WHEN %(cutoff)s::timestamptz IS NOT NULL THEN coalesce(least(
            (SELECT "version" FROM "headwater"."events"
             WHERE "stream" = "stream"."name" AND "created_at" >= %(cutoff)s::timestamptz ORDER BY "version" LIMIT 1),
            (SELECT "link"."version"
             FROM "headwater"."links" AS "link" JOIN "headwater"."events" AS "event" USING ("position")
             WHERE "link"."stream" = "stream"."name" AND "event"."created_at" >= %(cutoff)s::timestamptz
             ORDER BY "link"."version" LIMIT 1),
            (SELECT min("archived"."first_version")
             FROM "headwater"."archived_streams" AS "archived" JOIN "headwater"."ranges" AS "range" USING ("first_position")
             WHERE "archived"."stream" = "stream"."name" AND "range"."archived_at" IS NOT NULL
                AND "range"."last_time" >= %(cutoff)s::timestamptz),
            (SELECT min("link"."version")
             FROM "headwater"."links" AS "link" JOIN "headwater"."ranges" AS "range"
                ON "link"."position" BETWEEN "range"."first_position" AND "range"."last_position"
             WHERE "link"."stream" = "stream"."name" AND "range"."archived_at" IS NOT NULL
                AND "range"."last_time" >= %(cutoff)s::timestamptz)
        ), "stream"."version" + 1) END
    ) AS "from"
) AS "keep"
WHERE "stream"."deleted_at" IS NULL AND "keep"."from" > "stream"."truncated_before"
    AND ("stream"."name" = %(stream)s::text OR split_part("stream"."name", '-', 1) = %(category)s::text)
ORDER BY "stream"."name";
