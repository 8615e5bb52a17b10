-- Replays of a range: asked for as commands, made by the owners, with a progress of their own.

-- name: issue_replay
-- For each partition that has settled something of the range; nothing above its checkpoint is ever replayed.
WITH "asked" AS (
    SELECT
        "p"."subscription_id", "p"."partition", "p"."lock_id",
        least(coalesce(%(until)s::bigint, "p"."checkpoint"), "p"."checkpoint") AS "until"
    FROM "headwater"."partitions" AS "p" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
    WHERE "s"."name" = %(name)s AND (%(partition)s::integer IS NULL OR "p"."partition" = %(partition)s)
), "issued" AS (
    INSERT INTO "headwater"."commands" ("subscription_id", "partition", "verb", "arguments", "issued_by")
    SELECT "subscription_id", "partition", 'replay', %(arguments)s, %(issued_by)s
    FROM "asked"
    WHERE "until" > %(after)s
    ORDER BY "partition"
    RETURNING "command_id", "subscription_id", "partition"
)
INSERT INTO "headwater"."replays" ("command_id", "lock_id", "after", "until", "side_effects", "checkpoint")
SELECT "issued"."command_id", "asked"."lock_id", %(after)s, "asked"."until", %(side_effects)s, %(after)s
FROM "issued" JOIN "asked" USING ("subscription_id", "partition")
RETURNING "command_id";

-- name: find_replay
SELECT "after", "until", "side_effects", "checkpoint", "in_flight_to", "attempt", "cancelled_by"
FROM "headwater"."replays"
WHERE "command_id" = %(command_id)s;

-- name: save_replay
-- Under the partition's epoch, like every write of an owner. Taken back, the checkpoint falls to what was handed out.
UPDATE "headwater"."replays" AS "r"
SET
    "checkpoint" = CASE
        WHEN %(back)s THEN %(checkpoint)s
        ELSE greatest("r"."checkpoint", %(checkpoint)s)
    END,
    "in_flight_to" = %(in_flight_to)s,
    "attempt" = %(attempt)s,
    "delivered" = "r"."delivered" + %(delivered)s,
    "failed" = "r"."failed" + %(failed)s,
    "last_error" = coalesce(%(last_error)s::text, "r"."last_error"),
    "started_at" = coalesce("r"."started_at", clock_timestamp())
FROM "headwater"."partitions" AS "p"
WHERE "r"."command_id" = %(command_id)s AND "p"."lock_id" = "r"."lock_id" AND "p"."epoch" = %(epoch)s
RETURNING "r"."command_id";

-- name: cancel_replays
UPDATE "headwater"."replays" AS "r"
SET "cancelled_by" = %(issued_by)s
FROM "headwater"."commands" AS "c" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE "r"."command_id" = "c"."command_id"
    AND "s"."name" = %(name)s
    AND "c"."applied_at" IS NULL
    AND "r"."cancelled_by" IS NULL
RETURNING "r"."command_id";

-- name: list_replays
SELECT
    "r"."command_id", "s"."name", "c"."partition", "r"."after", "r"."until", "r"."checkpoint", "r"."side_effects",
    "r"."delivered", "r"."failed", "r"."last_error", "c"."issued_by", "c"."issued_at", "r"."started_at", "c"."applied_at",
    "c"."outcome",
    CASE WHEN "c"."applied_at" IS NULL AND "r"."checkpoint" > "r"."after"
        THEN ("r"."until" - "r"."checkpoint")
            * extract(epoch FROM clock_timestamp() - "r"."started_at")::float8 / ("r"."checkpoint" - "r"."after")
    END
FROM "headwater"."replays" AS "r"
JOIN "headwater"."commands" AS "c" USING ("command_id")
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE %(name)s::text IS NULL OR "s"."name" = %(name)s
ORDER BY "r"."command_id" DESC
LIMIT %(limit)s;
