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

-- name: begin_parked_change
-- The audit of what is about to be done to parked events; a retry's rows name it.
INSERT INTO "headwater"."commands" ("subscription_id", "verb", "arguments", "issued_by", "applied_at")
SELECT "subscription_id", %(verb)s, %(arguments)s, %(issued_by)s, clock_timestamp()
FROM "headwater"."subscriptions"
WHERE "name" = %(name)s
RETURNING "command_id", "subscription_id";

-- name: lock_parked
-- No owner parks, begins or settles anything meanwhile: each of these writes takes a lock on its partition's row first. Whoever
-- is cut off with these locks is ended by the server.
SELECT set_config('idle_in_transaction_session_timeout', '5000', true)
FROM (
    SELECT "p"."lock_id"
    FROM "headwater"."partitions" AS "p"
    WHERE "p"."subscription_id" = %(subscription_id)s
    ORDER BY "p"."lock_id"
    FOR NO KEY UPDATE
) AS "locked";

-- name: open_parked
-- All that is parked, and which of it is meant. A statement of its own, so that it sees what was there when the locks were held.
SELECT
    "e"."position", "e"."partition_key", "e"."status", "e"."reason", "e"."begun" > 0,
    coalesce(
        (%(positions)s::bigint[] IS NULL OR "e"."position" = ANY (%(positions)s))
        AND (%(key)s::text IS NULL OR "e"."partition_key" = %(key)s)
        AND (%(stream)s::text IS NULL OR "ev"."stream" = %(stream)s)
        AND (%(type)s::text IS NULL OR "ev"."type" = %(type)s)
        AND (%(error)s::text IS NULL OR strpos("e"."error", %(error)s) > 0),
        false
    )
FROM "headwater"."parked_events" AS "e"
LEFT JOIN "headwater"."events" AS "ev" USING ("position")
WHERE "e"."subscription_id" = %(subscription_id)s AND "e"."status" IN ('parked', 'retrying')
ORDER BY "e"."position";

-- name: change_parked
-- What was decided of each. What is handed out again counts its attempts anew; with a rate it becomes due in its turn.
UPDATE "headwater"."parked_events" AS "e"
SET
    "status" = "new"."status",
    "reason" = "new"."reason",
    "attempts" = CASE WHEN "new"."status" = 'retrying' THEN "e"."attempts" + "e"."begun" ELSE "e"."attempts" END,
    "begun" = CASE WHEN "new"."status" = 'retrying' THEN 0 ELSE "e"."begun" END,
    "retry_id" = CASE WHEN "new"."status" = 'retrying' THEN %(command_id)s::bigint END,
    "retry_at" = CASE
        WHEN "new"."status" = 'retrying'
        THEN statement_timestamp() + ("new"."turn" - 1) * %(every)s::float8 * interval '1 second'
    END,
    "updated_at" = clock_timestamp()
FROM unnest(%(positions)s::bigint[], %(statuses)s::text[], %(reasons)s::text[])
    WITH ORDINALITY AS "new" ("position", "status", "reason", "turn")
WHERE "e"."subscription_id" = %(subscription_id)s AND "e"."position" = "new"."position";

-- name: end_parked_change
UPDATE "headwater"."commands" SET "outcome" = %(outcome)s, "every" = %(every)s::float8 WHERE "command_id" = %(command_id)s;

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
    RETURNING "edit_id"
)
UPDATE "headwater"."parked_events"
SET "edited" = %(after)s, "updated_at" = clock_timestamp()
WHERE "parked_id" = %(parked_id)s
RETURNING (SELECT "edit_id" FROM "noted");

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
-- What an operator asked for, and what waits behind nothing any more: nothing that stands before it in its key waits for an
-- operator. Of a retry with a rate only the next one, which goes alone, and how long it has to wait.
WITH "open" AS (
    SELECT
        "e".*, "e"."status" = 'parked' AND "e"."reason" <> 'behind' AS "blocks",
        "e"."status" = 'retrying' AND "e"."retry_at" IS NOT NULL AS "paced"
    FROM "headwater"."parked_events" AS "e" JOIN "headwater"."partitions" AS "p" USING ("subscription_id", "partition")
    WHERE "p"."lock_id" = %(lock_id)s AND "p"."epoch" = %(epoch)s AND "e"."status" IN ('parked', 'retrying')
), "ordered" AS (
    SELECT
        "open".*,
        "partition_key" IS NULL OR NOT coalesce(bool_or("blocks" OR "paced") OVER "before", false) AS "free",
        "partition_key" IS NULL OR count(*) OVER "before" = 0 AS "first"
    FROM "open"
    WINDOW "before" AS (
        PARTITION BY "partition_key" ORDER BY "position" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
), "next" AS (
    SELECT
        "o".*,
        row_number() OVER (PARTITION BY CASE WHEN "o"."paced" THEN "o"."retry_id" ELSE -"o"."parked_id" END ORDER BY "o"."position")
            AS "turn"
    FROM "ordered" AS "o"
    WHERE "o"."free" AND NOT "o"."blocks" AND ("o"."first" OR NOT "o"."paced")
)
SELECT
    "n"."position", "n"."partition_key", "n"."attempts" + "n"."begun", "n"."begun", "n"."number",
    greatest(extract(epoch FROM greatest("n"."retry_at", "c"."next_at") - clock_timestamp()), 0)::float8
FROM "next" AS "n" LEFT JOIN "headwater"."commands" AS "c" ON "c"."command_id" = "n"."retry_id" AND "n"."paced"
WHERE "n"."turn" = 1
ORDER BY "n"."position"
LIMIT %(limit)s;

-- name: begin_retry
-- Under the epoch: count an attempt before it is made, unless it must not be made any more. Since it was found an operator may
-- have said otherwise, or an earlier event of its key may have failed, or be handled but not settled. With a rate it takes the
-- next turn of its retry, of which other partitions may have events, too. What an operator changes meanwhile is asked of the
-- row itself: only that is looked at again when it was waited for.
WITH "mine" AS (
    UPDATE "headwater"."partitions"
    SET "retries" = %(write)s
    WHERE "lock_id" = %(lock_id)s
        AND "epoch" = %(epoch)s
        AND "rewinds" = %(rewinds)s
        AND "retries" <= %(write)s
    RETURNING "subscription_id", "partition"
), "due" AS (
    SELECT "e"."parked_id", "e"."retry_id", "e"."retry_at"
    FROM "headwater"."parked_events" AS "e" JOIN "mine" USING ("subscription_id", "partition")
    WHERE "e"."position" = %(position)s
        AND ("e"."status" = 'retrying' OR ("e"."status" = 'parked' AND "e"."reason" = 'behind'))
        AND ("e"."status" = 'parked' OR coalesce("e"."retry_at" <= clock_timestamp(), true))
        AND NOT EXISTS (
            SELECT 1
            FROM "headwater"."parked_events" AS "f"
            WHERE "f"."subscription_id" = "e"."subscription_id"
                AND "f"."partition_key" = "e"."partition_key"
                AND "f"."status" IN ('parked', 'retrying')
                AND "f"."position" < "e"."position"
        )
), "turn" AS (
    UPDATE "headwater"."commands" AS "c"
    SET "next_at" = clock_timestamp() + "c"."every" * interval '1 second'
    FROM "due"
    WHERE "c"."command_id" = "due"."retry_id"
        AND "due"."retry_at" IS NOT NULL
        AND coalesce("c"."next_at" <= clock_timestamp(), true)
    RETURNING "c"."command_id"
), "begun" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET "status" = 'retrying', "begun" = "e"."begun" + 1, "updated_at" = clock_timestamp()
    FROM "due"
    WHERE "e"."parked_id" = "due"."parked_id"
        AND ("due"."retry_at" IS NULL OR EXISTS (SELECT FROM "turn"))
        AND ("e"."status" = 'retrying' OR ("e"."status" = 'parked' AND "e"."reason" = 'behind'))
        AND "e"."retry_id" IS NOT DISTINCT FROM "due"."retry_id"
    RETURNING "e"."edited", true AS "counted"
)
SELECT "begun"."edited", coalesce("begun"."counted", false) FROM "mine" LEFT JOIN "begun" ON true;

-- name: retried_parked
-- Under the epoch: how one retry went. A failure puts the event back, and the later ones of its key with it: all of them wait
-- behind it again.
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
            WHEN %(status)s <> 'parked' THEN "e"."reason"
            WHEN "e"."position" = %(position)s THEN 'failed'
            WHEN "e"."reason" = 'held' THEN 'behind'
            ELSE "e"."reason"
        END,
        "attempts" = "e"."attempts"
            + CASE WHEN "e"."position" = %(position)s THEN greatest("e"."begun", 1) ELSE 0 END,
        "begun" = CASE WHEN "e"."position" = %(position)s THEN 0 ELSE "e"."begun" END,
        "error" = CASE WHEN "e"."position" = %(position)s THEN %(error)s ELSE "e"."error" END,
        "retry_id" = NULL,
        "retry_at" = NULL,
        "updated_at" = clock_timestamp()
    FROM "mine"
    WHERE "e"."subscription_id" = "mine"."subscription_id"
        AND (
            ("e"."position" = %(position)s AND "e"."status" IN ('retrying', 'parked'))
            OR (
                %(status)s = 'parked'
                AND ("e"."status" = 'retrying' OR ("e"."status" = 'parked' AND "e"."reason" = 'held'))
                AND "e"."position" > %(position)s
                AND "e"."partition_key" = %(key)s
            )
        )
    RETURNING 1
)
SELECT (SELECT count(*) FROM "tried") FROM "mine";
