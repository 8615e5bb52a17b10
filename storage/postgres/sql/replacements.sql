-- New versions beside old ones. Each step locks the rows of both, looks, and writes; so a step that is made twice, or by
-- two supervisors, is made once.

-- name: lock_versions
-- Both versions with their partitions, locked, and whether anybody holds the lease of each.
SELECT
    "s"."subscription_id", "s"."name", "s"."source", "s"."wanted", "s"."options", "p"."partition", "p"."lock_id",
    "p"."checkpoint", "p"."in_flight_to", "p"."stream_id", "p"."closed", "p"."phase",
    EXISTS (
        SELECT FROM pg_locks AS "l"
        WHERE "l"."locktype" = 'advisory'
            AND "l"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
            AND "l"."classid" = '"headwater"."partitions"'::regclass
            AND "l"."objid"::integer = "p"."lock_id"
            AND "l"."objsubid" = 2
            AND "l"."granted"
    ) AS "owned",
    CASE WHEN "s"."source" = '$all'
        THEN (SELECT "position" FROM "headwater"."head")
        ELSE coalesce((SELECT "version" FROM "headwater"."streams" WHERE "streams"."name" = "s"."source"), 0)
    END AS "head"
FROM "headwater"."partitions" AS "p" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
WHERE "s"."name" IN (%(old)s, %(new)s)
ORDER BY "p"."lock_id"
FOR NO KEY UPDATE OF "p", "s";

-- name: follow_partition
-- The epoch is raised, so that an owner of this partition that does not know the boundary delivers nothing more. What was
-- said of its phase before is no word on how it runs as a follower.
UPDATE "headwater"."partitions"
SET
    "follows" = %(follows)s, "closed" = false, "epoch" = "epoch" + 1,
    "replay_side_effects" = %(side_effects)s,
    "phase" = 'new', "reason" = NULL, "since" = clock_timestamp(),
    -- Whoever begins a replacement resumes it; attempts count anew, as after a resume.
    "halted" = NULL, "halt_reason" = NULL
WHERE "lock_id" = %(lock_id)s;

-- name: begin_replacement
INSERT INTO "headwater"."replacements" ("old_id", "new_id", "began_at", "issued_by")
VALUES (%(old_id)s, %(new_id)s, %(began_at)s, %(issued_by)s)
RETURNING "replacement_id";

-- name: want_subscription
UPDATE "headwater"."subscriptions"
SET "wanted" = %(wanted)s, "wanted_why" = NULL, "updated_at" = clock_timestamp()
WHERE "subscription_id" = %(subscription_id)s;

-- name: lock_replacement
SELECT "phase", "old_wanted", extract(epoch FROM clock_timestamp() - "since")::float8, "must_reach"
FROM "headwater"."replacements"
WHERE "replacement_id" = %(replacement_id)s
FOR UPDATE;

-- name: set_replacement_phase
UPDATE "headwater"."replacements"
SET
    "phase" = %(phase)s, "since" = clock_timestamp(),
    "old_wanted" = coalesce(%(old_wanted)s::text, "old_wanted"),
    "must_reach" = greatest("must_reach", %(must_reach)s)
WHERE "replacement_id" = %(replacement_id)s;

-- name: close_partition
-- Whoever comes for its lease from now on finds it closed; the epoch ends what anybody may still hold.
UPDATE "headwater"."partitions"
SET
    "closed" = true, "epoch" = "epoch" + 1, "phase" = 'finished', "reason" = %(reason)s, "since" = clock_timestamp(),
    "halted" = NULL, "halt_reason" = NULL
WHERE "lock_id" = %(lock_id)s;

-- name: end_following
-- The boundary is final now: what the old version has settled is a replay, also what it had before it was rewound, and the
-- next event is the new one's own. What it counted in another incarnation of their stream says nothing about this one.
UPDATE "headwater"."partitions" AS "p"
SET
    "replay_to" = CASE
        WHEN "p"."stream_id" IS NULL OR "p"."stream_id" IS NOT DISTINCT FROM "old"."stream_id"
        THEN greatest("p"."replay_to", "old"."checkpoint", "old"."replay_to") ELSE "p"."replay_to"
    END,
    "follows" = NULL
FROM "headwater"."partitions" AS "old"
WHERE "p"."lock_id" = %(lock_id)s AND "old"."lock_id" = %(followed)s;

-- name: list_replacements
SELECT
    "r"."replacement_id", "old"."name" AS "old", "new"."name" AS "new", "r"."phase", "r"."since", "r"."began_at",
    "r"."issued_by", "r"."issued_at",
    (SELECT sum("checkpoint")::bigint FROM "headwater"."partitions" WHERE "subscription_id" = "r"."new_id") AS "reached",
    (SELECT sum(greatest("followed"."checkpoint" - "p"."checkpoint", 0))::bigint
     FROM "headwater"."partitions" AS "p"
     JOIN "headwater"."partitions" AS "followed" ON "followed"."lock_id" = "p"."follows"
     WHERE "p"."subscription_id" = "r"."new_id") AS "to_go",
    extract(epoch FROM clock_timestamp() - "r"."issued_at")::float8 AS "elapsed"
FROM "headwater"."replacements" AS "r"
JOIN "headwater"."subscriptions" AS "old" ON "old"."subscription_id" = "r"."old_id"
JOIN "headwater"."subscriptions" AS "new" ON "new"."subscription_id" = "r"."new_id"
WHERE NOT %(open)s OR "r"."phase" IN ('catching up', 'taking over')
ORDER BY "r"."replacement_id" DESC
LIMIT %(limit)s;
