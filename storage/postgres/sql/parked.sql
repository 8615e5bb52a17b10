-- Events that were set aside, for operators and for the owner that tries them again.

-- name: list_parked
SELECT
    "e"."parked_id", "s"."name", "e"."partition", "e"."position", "e"."number", "e"."partition_key", "e"."status",
    "e"."reason", "e"."error", "e"."attempts" + "e"."begun", "e"."parked_at", "e"."updated_at", "ev"."stream", "ev"."type",
    "e"."edited" IS NOT NULL, "e"."retry_at"
FROM "headwater"."parked_events" AS "e"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
LEFT JOIN "headwater"."events" AS "ev" USING ("position")
WHERE "s"."name" = %(name)s
    AND "e"."status" = ANY (%(statuses)s::text[])
    AND (%(positions)s::bigint[] IS NULL OR "e"."position" = ANY (%(positions)s))
    AND (%(key)s::text IS NULL OR "e"."partition_key" = %(key)s)
    AND (%(stream)s::text IS NULL OR "ev"."stream" = %(stream)s)
    AND (%(type)s::text IS NULL OR "ev"."type" = %(type)s)
    AND (%(error)s::text IS NULL OR strpos("e"."error", %(error)s) > 0)
    AND "e"."position" > %(after)s
ORDER BY "e"."position"
LIMIT %(limit)s;

-- name: change_parked
-- A key's events are tried again from its first one on, or their order would break: those that wait before a chosen one
-- come along. Events without a key stand for themselves. With a rate they become due one after the other.
WITH "chosen" AS (
    SELECT "e"."subscription_id", "e"."position", "e"."partition_key"
    FROM "headwater"."parked_events" AS "e"
    JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
    LEFT JOIN "headwater"."events" AS "ev" USING ("position")
    WHERE "s"."name" = %(name)s
        AND "e"."status" = ANY (%(from)s::text[])
        AND (%(positions)s::bigint[] IS NULL OR "e"."position" = ANY (%(positions)s))
        AND (%(key)s::text IS NULL OR "e"."partition_key" = %(key)s)
        AND (%(stream)s::text IS NULL OR "ev"."stream" = %(stream)s)
        AND (%(type)s::text IS NULL OR "ev"."type" = %(type)s)
        AND (%(error)s::text IS NULL OR strpos("e"."error", %(error)s) > 0)
    ORDER BY "e"."position"
    LIMIT %(limit)s
), "with_earlier" AS (
    SELECT "e"."parked_id", row_number() OVER (ORDER BY "e"."position") - 1 AS "turn"
    FROM "headwater"."parked_events" AS "e"
    WHERE "e"."status" = ANY (%(from)s::text[]) AND EXISTS (
        SELECT FROM "chosen"
        WHERE "e"."subscription_id" = "chosen"."subscription_id"
            AND (
                "e"."position" = "chosen"."position"
                OR (%(with_earlier)s AND "e"."partition_key" = "chosen"."partition_key"
                    AND "e"."position" < "chosen"."position")
            )
    )
)
UPDATE "headwater"."parked_events" AS "e"
SET
    "status" = %(to)s,
    "attempts" = CASE WHEN %(to)s = 'retrying' THEN "e"."attempts" + "e"."begun" ELSE "e"."attempts" END,
    "begun" = CASE WHEN %(to)s = 'retrying' THEN 0 ELSE "e"."begun" END,
    "retry_at" = statement_timestamp() + "with_earlier"."turn" / nullif(%(rate)s::float8, 0) * interval '1 second',
    "updated_at" = clock_timestamp()
FROM "with_earlier"
WHERE "e"."parked_id" = "with_earlier"."parked_id" AND "e"."status" = ANY (%(from)s::text[])
RETURNING "e"."position";

-- name: find_parked_for_edit
-- Only what waits for an operator: an event that is being handled again must not change meanwhile.
SELECT "e"."parked_id", "e"."edited"
FROM "headwater"."parked_events" AS "e" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE "s"."name" = %(name)s AND "e"."position" = %(position)s AND "e"."status" = 'parked'
FOR NO KEY UPDATE OF "e";

-- name: edit_parked
WITH "noted" AS (
    INSERT INTO "headwater"."parked_edits" ("parked_id", "edited_by", "reason", "before", "after")
    VALUES (%(parked_id)s, %(edited_by)s, %(reason)s, %(before)s, %(after)s)
)
UPDATE "headwater"."parked_events"
SET "edited" = %(after)s, "updated_at" = clock_timestamp()
WHERE "parked_id" = %(parked_id)s;

-- name: list_parked_edits
SELECT "edited_by", "edited_at", "reason", "before", "after"
FROM "headwater"."parked_edits"
WHERE "parked_id" = %(parked_id)s
ORDER BY "edit_id";

-- name: audit_parked
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at", "outcome")
SELECT "subscription_id", %(verb)s, %(arguments)s, %(issued_by)s, clock_timestamp(), %(outcome)s
FROM "headwater"."subscriptions"
WHERE "name" = %(name)s;

-- name: parked_to_retry
-- What an operator asked for, and what waits behind nothing any more: all that failed before it in its key is settled.
SELECT "e"."position", "e"."partition_key", "e"."attempts" + "e"."begun", "e"."begun", "e"."number"
FROM "headwater"."parked_events" AS "e" JOIN "headwater"."partitions" AS "p" USING ("subscription_id", "partition")
WHERE "p"."lock_id" = %(lock_id)s
    AND "p"."epoch" = %(epoch)s
    AND (
        ("e"."status" = 'retrying' AND coalesce("e"."retry_at" <= clock_timestamp(), true))
        OR (
            "e"."status" = 'parked'
            AND "e"."reason" = 'behind'
            AND NOT EXISTS (
                SELECT 1
                FROM "headwater"."parked_events" AS "f"
                WHERE "f"."subscription_id" = "e"."subscription_id"
                    AND "f"."partition_key" = "e"."partition_key"
                    AND "f"."reason" = 'failed'
                    AND ("f"."status" = 'parked' OR ("f"."status" = 'retrying' AND "f"."retry_at" > clock_timestamp()))
                    AND "f"."position" < "e"."position"
            )
        )
    )
ORDER BY "e"."position"
LIMIT %(limit)s;

-- name: begin_retry
-- Under the epoch: count an attempt before it is made, unless it must not be made any more. Since it was found an operator may
-- have said otherwise, or an earlier event of its key may have failed, or be handled but not settled.
WITH "mine" AS (
    UPDATE "headwater"."partitions"
    SET "retries" = %(write)s
    WHERE "lock_id" = %(lock_id)s
        AND "epoch" = %(epoch)s
        AND "rewinds" = %(rewinds)s
        AND "retries" <= %(write)s
    RETURNING "subscription_id", "partition"
), "begun" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET "status" = 'retrying', "begun" = "e"."begun" + 1, "updated_at" = clock_timestamp()
    FROM "mine"
    WHERE "e"."subscription_id" = "mine"."subscription_id"
        AND "e"."partition" = "mine"."partition"
        AND "e"."position" = %(position)s
        AND ("e"."status" = 'retrying' OR ("e"."status" = 'parked' AND "e"."reason" = 'behind'))
        AND NOT EXISTS (
            SELECT 1
            FROM "headwater"."parked_events" AS "f"
            WHERE "f"."subscription_id" = "e"."subscription_id"
                AND "f"."partition_key" = "e"."partition_key"
                AND "f"."status" IN ('parked', 'retrying')
                AND "f"."position" < "e"."position"
        )
    RETURNING "e"."edited", true AS "counted"
)
SELECT "begun"."edited", coalesce("begun"."counted", false) FROM "mine" LEFT JOIN "begun" ON true;

-- name: retried_parked
-- Under the epoch: how one retry went. A failure puts the event back, and the later ones of its key with it.
WITH "mine" AS (
    UPDATE "headwater"."partitions"
    SET "retries" = %(write)s
    WHERE "lock_id" = %(lock_id)s
        AND "epoch" = %(epoch)s
        AND "rewinds" = %(rewinds)s
        AND "retries" <= %(write)s
    RETURNING "subscription_id"
), "tried" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET
        "status" = %(status)s,
        "reason" = CASE
            WHEN %(status)s = 'parked' AND "e"."position" = %(position)s THEN 'failed' ELSE "e"."reason"
        END,
        "attempts" = "e"."attempts"
            + CASE WHEN "e"."position" = %(position)s THEN greatest("e"."begun", 1) ELSE 0 END,
        "begun" = CASE WHEN "e"."position" = %(position)s THEN 0 ELSE "e"."begun" END,
        "error" = CASE WHEN "e"."position" = %(position)s THEN %(error)s ELSE "e"."error" END,
        "updated_at" = clock_timestamp()
    FROM "mine"
    WHERE "e"."subscription_id" = "mine"."subscription_id"
        AND (
            ("e"."position" = %(position)s AND "e"."status" IN ('retrying', 'parked'))
            OR (
                %(status)s = 'parked'
                AND "e"."status" = 'retrying'
                AND "e"."position" > %(position)s
                AND "e"."partition_key" = %(key)s
            )
        )
    RETURNING 1
)
SELECT (SELECT count(*) FROM "tried") FROM "mine";
