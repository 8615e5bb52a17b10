-- What operators ask for, as rows: obeyed once by whoever owns the partition, and kept as the audit.

-- name: issue_command
-- One row for each partition that it is for, so that each owner answers for itself.
INSERT INTO "headwater"."commands" ("subscription_id", "partition", "verb", "arguments", "issued_by")
SELECT "p"."subscription_id", "p"."partition", %(verb)s, %(arguments)s, %(issued_by)s
FROM "headwater"."partitions" AS "p" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE "s"."name" = %(name)s AND (%(partition)s::integer IS NULL OR "p"."partition" = %(partition)s)
ORDER BY "p"."partition"
RETURNING "command_id", pg_notify('headwater_news', 'wanted');

-- name: end_halts
-- Before the command is obeyed, and when nobody is there to obey it: the next owner goes on.
UPDATE "headwater"."partitions" AS "p"
SET "halted" = NULL, "halt_reason" = NULL
FROM "headwater"."subscriptions" AS "s"
WHERE "s"."subscription_id" = "p"."subscription_id"
    AND "s"."name" = %(name)s
    AND (%(partition)s::integer IS NULL OR "p"."partition" = %(partition)s)
    AND "p"."halted" IS NOT NULL;

-- name: open_commands
SELECT
    "c"."command_id", "s"."name", "c"."partition", "p"."lock_id", "c"."verb", "c"."arguments", "c"."issued_by",
    "c"."issued_at", "c"."applied_at", "c"."outcome"
FROM "headwater"."commands" AS "c"
JOIN "headwater"."partitions" AS "p" USING ("subscription_id", "partition")
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE "c"."applied_at" IS NULL AND "p"."lock_id" = ANY (%(lock_ids)s::integer[])
ORDER BY "c"."command_id";

-- name: list_commands
-- The correction of a parked event with what the payload was and what it became.
SELECT
    "c"."command_id", "s"."name", "c"."partition", NULL, "c"."verb", "c"."arguments", "c"."issued_by", "c"."issued_at",
    "c"."applied_at", "c"."outcome", "e"."edited_by", "e"."edited_at", "e"."reason", "e"."before", "e"."after"
FROM "headwater"."commands" AS "c"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
LEFT JOIN "headwater"."parked_edits" AS "e"
    ON "c"."verb" = 'edit parked' AND "e"."edit_id" = ("c"."arguments" ->> 'edit_id')::bigint
WHERE (%(name)s::text IS NULL OR "s"."name" = %(name)s)
    AND (%(since)s::timestamptz IS NULL OR "c"."issued_at" >= %(since)s)
ORDER BY "c"."command_id" DESC
LIMIT %(limit)s;

-- name: finish_command
-- Under the epoch: an owner that was replaced leaves the command to the next one.
WITH "mine" AS (
    SELECT "subscription_id", "partition"
    FROM "headwater"."partitions"
    WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s
    FOR SHARE
), "finished" AS (
    UPDATE "headwater"."commands" AS "c"
    SET "applied_at" = clock_timestamp(), "outcome" = %(outcome)s
    FROM "mine"
    WHERE "c"."command_id" = %(command_id)s
        AND "c"."subscription_id" = "mine"."subscription_id"
        AND "c"."partition" = "mine"."partition"
        AND "c"."applied_at" IS NULL
)
SELECT 1 FROM "mine";
