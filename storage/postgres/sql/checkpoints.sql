-- What owners write. Every statement names the epoch of the grant and changes no row when that is stale. What a late write
-- could undo names the rewind, too, after which it was sent, and changes no row after another one. Of two writes of a kind, of
-- which there is one at a time, that with the lower number was given up: it changes no row after the other.

-- name: save_progress
-- A lower checkpoint of the same incarnation is left out, so a save may be repeated and may come late; with the same one a
-- late save would set the attempts back, and is known by its number. The setting
-- holds for this statement's transaction only: what a crash of the server takes back is only delivered again, so the
-- commit waits for the disk only when it is asked to.
UPDATE "headwater"."partitions"
SET
    "checkpoint" = %(checkpoint)s,
    "in_flight_to" = %(in_flight_to)s,
    "attempt" = %(attempt)s,
    "stream_id" = %(stream_id)s::bigint,
    "checkpointed_at" = CASE WHEN "checkpoint" = %(checkpoint)s THEN "checkpointed_at" ELSE clock_timestamp() END,
    "delivered" = "delivered" + %(delivered)s,
    "redelivered" = "redelivered" + %(redelivered)s,
    "saves" = %(write)s
WHERE "lock_id" = %(lock_id)s
    AND "epoch" = %(epoch)s
    AND "rewinds" = %(rewinds)s
    AND "saves" <= %(write)s
    AND ("checkpoint" <= %(checkpoint)s OR "stream_id" IS DISTINCT FROM %(stream_id)s::bigint)
RETURNING set_config('synchronous_commit', %(synchronous_commit)s, true);

-- name: save_progress_in_transaction
-- Only forward, and only from where the transaction found it: a handler that was given up and comes back late must not commit
-- its effects a second time, also when some of its events were handled alone meanwhile. From here on the transaction holds
-- the partition's row, so the server ends it when its client is frozen or cut off.
UPDATE "headwater"."partitions"
SET
    "checkpoint" = %(checkpoint)s,
    "in_flight_to" = %(in_flight_to)s,
    "attempt" = %(attempt)s,
    "stream_id" = %(stream_id)s::bigint,
    "checkpointed_at" = clock_timestamp(),
    "delivered" = "delivered" + %(delivered)s,
    "redelivered" = "redelivered" + %(redelivered)s
WHERE "lock_id" = %(lock_id)s
    AND "epoch" = %(epoch)s
    AND "rewinds" = %(rewinds)s
    AND ("checkpoint" < %(checkpoint)s OR "stream_id" IS DISTINCT FROM %(stream_id)s::bigint)
    AND (%(found)s::bigint IS NULL
        OR ("checkpoint" = %(found)s AND "stream_id" IS NOT DISTINCT FROM %(found_stream_id)s::bigint))
RETURNING set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, true);

-- name: begin_fenced
-- The first statement of a handler's transaction: no row when the epoch is over, or after a rewind. The shared lock, which
-- ends with the transaction, tells the next owner which sessions work under an older epoch: it ends them when it is granted
-- the lease, so that a frozen owner's half-done transaction blocks nobody's rows.
SELECT
    "checkpoint", "stream_id",
    pg_advisory_xact_lock_shared('"headwater"."subscriptions"'::regclass::oid::integer, %(lock_id)s::integer)
FROM "headwater"."partitions"
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "rewinds" = %(rewinds)s;

-- name: load_progress
SELECT "checkpoint", "in_flight_to", "attempt", "stream_id"
FROM "headwater"."partitions"
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "rewinds" = %(rewinds)s;

-- name: load_certain_progress
-- When it is unknown whether a handler's transaction was committed: one that is just being committed is waited for.
SELECT "checkpoint", "in_flight_to", "attempt", "stream_id"
FROM "headwater"."partitions"
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "rewinds" = %(rewinds)s
FOR SHARE;

-- name: rewind_progress
-- What an operator asked for: the checkpoint may fall. What was settled before is a replay from now on, and is delivered also where an
-- earlier set of partitions had settled it. The commands that asked for it are obeyed with it: an owner that dies before has
-- left them to the next one, and one that dies afterwards has not. What is parked without a key and comes again is closed:
-- tried again as well, it would be handled twice. What has a key stays, as later events wait behind it. The numbers of a
-- stream that was made anew are not those under which anything is parked: that waits for no checkpoint any more.
-- Each try has a higher number than the one before. So one that is executed late is not made a second time, and what was sent
-- before this one writes nothing from now on.
WITH "mine" AS (
    SELECT
        "subscription_id", "partition",
        "stream_id" IS NOT NULL AND "stream_id" IS DISTINCT FROM %(stream_id)s::bigint AS "anew"
    FROM "headwater"."partitions"
    WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "rewinds" < %(rewinds)s
    FOR NO KEY UPDATE
), "closed" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET "status" = 'settled', "updated_at" = clock_timestamp()
    FROM "mine"
    WHERE NOT "mine"."anew"
        AND "e"."subscription_id" = "mine"."subscription_id"
        AND "e"."partition" = "mine"."partition"
        AND "e"."status" IN ('parked', 'retrying')
        AND "e"."partition_key" IS NULL
        AND "e"."number" > %(checkpoint)s
), "uncounted" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET "number" = 0
    FROM "mine"
    WHERE "mine"."anew"
        AND "e"."subscription_id" = "mine"."subscription_id"
        AND "e"."partition" = "mine"."partition"
        AND "e"."status" IN ('parked', 'retrying')
), "rewound" AS (
    UPDATE "headwater"."partitions" AS "p"
    SET
        "checkpoint" = %(checkpoint)s,
        "in_flight_to" = %(in_flight_to)s,
        "attempt" = %(attempt)s,
        "stream_id" = %(stream_id)s::bigint,
        "rewinds" = %(rewinds)s,
        "replay_to" = CASE
            WHEN "stream_id" IS NOT DISTINCT FROM %(stream_id)s::bigint THEN greatest("replay_to", %(settled)s) ELSE 0
        END,
        "replay_side_effects" = %(side_effects)s,
        "seamed" = false,
        "checkpointed_at" = clock_timestamp()
    FROM "mine"
    WHERE "p"."lock_id" = %(lock_id)s
    RETURNING "p"."subscription_id", "p"."partition"
), "obeyed" AS (
    UPDATE "headwater"."commands" AS "c"
    SET "applied_at" = clock_timestamp(), "outcome" = %(outcome)s
    FROM "rewound"
    WHERE "c"."command_id" = ANY (%(commands)s::bigint[])
        AND "c"."subscription_id" = "rewound"."subscription_id"
        AND "c"."partition" = "rewound"."partition"
        AND "c"."applied_at" IS NULL
)
SELECT "subscription_id" FROM "rewound";

-- name: take_back_progress
-- An at-most-once checkpoint is saved before the delivery: it falls again when nobody was there to take that. No replay, no
-- command and nothing parked has to do with it. Numbered as a rewind is, so that no save that is late passes it again.
UPDATE "headwater"."partitions"
SET
    "rewinds" = %(rewinds)s,
    "checkpoint" = %(checkpoint)s,
    "in_flight_to" = %(in_flight_to)s,
    "attempt" = %(attempt)s,
    "stream_id" = %(stream_id)s::bigint,
    "checkpointed_at" = clock_timestamp(),
    "delivered" = "delivered" + %(delivered)s,
    "redelivered" = "redelivered" + %(redelivered)s
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "rewinds" < %(rewinds)s
RETURNING "checkpoint";

-- name: load_boundary
-- Up to where everything was settled before. A new version that follows an old one ends there, until the old one is closed;
-- where that counts in another incarnation of their stream, nothing of this one is known to be settled.
SELECT
    greatest("p"."replay_to", CASE
        WHEN "p"."stream_id" IS NULL OR "p"."stream_id" IS NOT DISTINCT FROM "old"."stream_id" THEN "old"."checkpoint"
    END),
    "p"."follows" IS NULL, "p"."replay_side_effects"
FROM "headwater"."partitions" AS "p"
LEFT JOIN "headwater"."partitions" AS "old" ON "old"."lock_id" = "p"."follows"
WHERE "p"."lock_id" = %(lock_id)s AND "p"."epoch" = %(epoch)s;

-- name: report_phase
-- "since" says when this phase began, so the same phase with another reason keeps it.
UPDATE "headwater"."partitions"
SET
    "phase" = %(phase)s,
    "reason" = %(reason)s,
    "since" = CASE WHEN "phase" = %(phase)s THEN "since" ELSE clock_timestamp() END,
    "reports" = %(write)s
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s AND "reports" <= %(write)s
RETURNING set_config('synchronous_commit', 'off', true);

-- name: halt_partition
-- Stopped until an operator resumes it, or going on: whoever owns it. With its audit row, as a pause by an operator has.
WITH "mine" AS (
    SELECT "subscription_id", "partition", ("halt_epoch", "halts") < (%(epoch)s, %(number)s) AS "newer"
    FROM "headwater"."partitions"
    WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s
    FOR NO KEY UPDATE
), "halted" AS (
    UPDATE "headwater"."partitions" AS "p"
    SET
        "halted" = %(phase)s::text,
        "halt_reason" = %(reason)s::text,
        "halted_at" = CASE WHEN %(phase)s::text IS NOT NULL THEN clock_timestamp() END,
        "halt_epoch" = %(epoch)s,
        "halts" = %(number)s
    FROM "mine"
    WHERE "p"."lock_id" = %(lock_id)s AND "mine"."newer"
    RETURNING "p"."subscription_id", "p"."partition"
), "audited" AS (
    INSERT INTO "headwater"."commands" (
        "subscription_id", "partition", "verb", "arguments", "issued_by", "applied_at", "outcome"
    )
    SELECT
        "subscription_id", "partition", %(verb)s, json_build_object('reason', %(reason)s::text), %(issued_by)s,
        clock_timestamp(), 'until it is resumed'
    FROM "halted"
    WHERE %(phase)s::text IS NOT NULL
)
SELECT 1 FROM "mine";

-- name: load_halt
SELECT "halted", "halt_reason", extract(epoch FROM clock_timestamp() - "halted_at")::float8
FROM "headwater"."partitions"
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s;

-- name: report_consumers
UPDATE "headwater"."partitions" SET "consumers" = %(consumers)s
WHERE "lock_id" = %(lock_id)s AND "epoch" = %(epoch)s
RETURNING set_config('synchronous_commit', 'off', true);

-- name: park_events
-- Parked again while it is parked: no change, but it stands where its source has it now. Parked again after it was settled
-- or discarded (a rewind): parked anew.
WITH "new" AS (
    SELECT *
    FROM unnest(
        %(positions)s::bigint[], %(numbers)s::bigint[], %(keys)s::text[], %(reasons)s::text[], %(errors)s::text[],
        %(attempts)s::integer[]
    ) AS "given" ("position", "number", "partition_key", "reason", "error", "attempts")
), "mine" AS (
    SELECT "subscription_id", "partition"
    FROM "headwater"."partitions"
    WHERE "lock_id" = %(lock_id)s
        AND "epoch" = %(epoch)s
        AND "rewinds" = %(rewinds)s
        AND "parks" <= %(write)s
    FOR NO KEY UPDATE
), "parked" AS (
    INSERT INTO "headwater"."parked_events" AS "old" (
        "subscription_id", "partition", "position", "number", "partition_key", "reason", "error", "attempts"
    )
    SELECT "mine"."subscription_id", "mine"."partition", "new".*
    FROM "mine", "new"
    ON CONFLICT ("subscription_id", "position") DO UPDATE SET
        "partition" = excluded."partition",
        "number" = excluded."number",
        "partition_key" = excluded."partition_key",
        "status" = 'parked',
        "reason" = excluded."reason",
        "error" = excluded."error",
        "attempts" = excluded."attempts",
        "begun" = 0,
        "edited" = NULL,
        "retry_id" = NULL,
        "retry_at" = NULL,
        "parked_at" = clock_timestamp(),
        "updated_at" = clock_timestamp()
    WHERE "old"."status" IN ('settled', 'discarded')
    RETURNING "position"
), "counted" AS (
    UPDATE "headwater"."parked_events" AS "e"
    SET "number" = "new"."number"
    FROM "mine", "new"
    WHERE "e"."subscription_id" = "mine"."subscription_id"
        AND "e"."position" = "new"."position"
        AND "e"."status" IN ('parked', 'retrying')
        AND "e"."number" <> "new"."number"
)
UPDATE "headwater"."partitions" AS "p"
SET "parked" = "p"."parked" + (SELECT count(*) FROM "parked"), "parks" = %(write)s
FROM "mine"
WHERE "p"."lock_id" = %(lock_id)s
RETURNING "p"."lock_id";

-- name: parked_keys
-- Of the whole subscription: the number of partitions may have changed since.
SELECT
    (SELECT "epoch" = %(epoch)s FROM "headwater"."partitions" WHERE "lock_id" = %(lock_id)s),
    ARRAY(
        SELECT DISTINCT "e"."partition_key"
        FROM "headwater"."parked_events" AS "e"
        JOIN "headwater"."partitions" AS "p" USING ("subscription_id")
        WHERE "p"."lock_id" = %(lock_id)s
            AND "e"."status" IN ('parked', 'retrying')
            AND "e"."partition_key" IS NOT NULL
    );
