-- The lease session: one dedicated autocommit session for each host process. Its advisory locks are the leases.

-- name: lease_session_settings
-- The server ends the session when it has heard nothing for the length of the lease: that is what frees the locks of an
-- owner that is frozen or cut off. Nothing in this session may wait for long, or the heartbeat would wait behind it.
SELECT
    set_config('idle_session_timeout', %(lease_ms)s::text, false),
    set_config('statement_timeout', %(lease_ms)s::text, false),
    set_config('lock_timeout', %(lock_wait_ms)s::text, false),
    set_config('idle_in_transaction_session_timeout', %(lease_ms)s::text, false);

-- name: lease_session_check
-- Asked in a statement of its own: behind a transaction-mode pooler another session may answer.
SELECT pg_backend_pid(), (SELECT "setting"::bigint FROM pg_settings WHERE "name" = 'idle_session_timeout');

-- name: lease_heartbeat
-- Any statement resets the server's timer; the process number proves that the same session answered.
SELECT pg_backend_pid();

-- name: lease_heartbeat_and_look
-- The server ends idle sessions by its time of day: one that was last heard in what is the future now, because the clock
-- has been set back since, would be ended that much too late. One's own role's only: others may not be ended.
SELECT
    pg_backend_pid(), count(*),
    coalesce(array_agg("pid") FILTER (WHERE
        "state" = 'idle' AND "state_change" > clock_timestamp() + interval '1 second'
        AND pg_get_userbyid("usesysid") = current_user
    ), '{}')
FROM pg_stat_get_activity(NULL)
WHERE "application_name" LIKE '% leases of %'
    AND "datid" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database());

-- name: end_outlasting_sessions
SELECT pg_terminate_backend("pid") FROM pg_stat_get_activity(NULL)
WHERE "pid" = ANY (%(backends)s) AND "application_name" LIKE '%% leases of %%'
    AND "state" = 'idle' AND "state_change" > clock_timestamp() + interval '1 second';

-- name: listen_to_news
-- What is written to the columns that others wait for is told at its commit. One channel for all stores of a database: to
-- look once more than needed harms nobody.
LISTEN "headwater_news";

-- name: host_arrives
-- The row and its lock become visible together: the lock is taken before the row is committed.
WITH "arrived" AS (
    INSERT INTO "headwater"."hosts" ("host", "node", "facts")
    VALUES (%(host)s, %(node)s, %(facts)s)
    ON CONFLICT ("host") DO UPDATE SET
        "node" = excluded."node", "facts" = excluded."facts", "started_at" = clock_timestamp()
    RETURNING "lock_id"
)
SELECT "lock_id", pg_try_advisory_lock('"headwater"."hosts"'::regclass::oid::integer, "lock_id") FROM "arrived";

-- name: claim_leases
-- One try for many partitions; waits for nobody. Each lock that is obtained raises the epoch in the same statement, so
-- there is no moment at which a new owner exists and an old one can still write. A partition whose row is locked (by a
-- handler's transaction that is about to commit) is left for the next try, and its advisory lock is given back; so is
-- one that another version has replaced.
-- The epoch of a partition that this session holds already is raised too, without locking twice.
WITH "obtained" AS MATERIALIZED (
    SELECT "key"."lock_id", "key"."held"
    FROM unnest(%(lock_ids)s::integer[], %(held)s::boolean[]) AS "key" ("lock_id", "held")
    WHERE "key"."held" OR pg_try_advisory_lock('"headwater"."partitions"'::regclass::oid::integer, "key"."lock_id")
), "free" AS MATERIALIZED (
    SELECT "lock_id"
    FROM "headwater"."partitions"
    WHERE "lock_id" IN (SELECT "lock_id" FROM "obtained") AND NOT "closed"
    FOR NO KEY UPDATE SKIP LOCKED
), "granted" AS (
    UPDATE "headwater"."partitions" AS "p"
    SET
        "epoch" = "p"."epoch" + 1, "owner" = %(host)s, "granted_at" = clock_timestamp(),
        "rewinds" = 0, "saves" = 0, "parks" = 0, "retries" = 0, "reports" = 0
    FROM "free"
    WHERE "p"."lock_id" = "free"."lock_id"
    RETURNING
        "p"."lock_id", "p"."epoch", "p"."checkpoint", "p"."in_flight_to", "p"."attempt", "p"."stream_id",
        CASE WHEN "p"."seamed" THEN (
            SELECT "s"."seam"::text FROM "headwater"."subscriptions" AS "s" WHERE "s"."subscription_id" = "p"."subscription_id"
        ) END AS "seam"
)
SELECT
    "obtained"."lock_id", "granted"."epoch", "granted"."checkpoint", "granted"."in_flight_to", "granted"."attempt",
    "granted"."stream_id", "granted"."seam",
    CASE WHEN "granted"."lock_id" IS NULL AND NOT "obtained"."held"
        THEN pg_advisory_unlock('"headwater"."partitions"'::regclass::oid::integer, "obtained"."lock_id")
    END
FROM "obtained" LEFT JOIN "granted" USING ("lock_id");

-- name: end_older_transactions
-- Handlers' transactions that an earlier owner of these partitions left open: whatever they wrote is void, and a frozen
-- client would keep its rows locked. Asked by whoever obtained the lock, before it is used; waits a moment for their end.
SELECT pg_terminate_backend("pid", 50)
FROM pg_locks JOIN pg_stat_activity USING ("pid")
WHERE "usename" = current_user
    AND "locktype" = 'advisory'
    AND "objsubid" = 2
    AND "datname" = current_database()
    AND "classid" = '"headwater"."subscriptions"'::regclass
    AND "objid"::integer = ANY (%(lock_ids)s::integer[]);

-- name: leave_partitions
-- Before the locks are given back: nobody owns these now. Rows that are locked are left as they are; the next owner
-- writes its own name. It need not be on disk before the next owner begins: a crash of the server frees the locks, too.
UPDATE "headwater"."partitions" AS "p"
SET "owner" = NULL
FROM (
    SELECT "lock_id"
    FROM "headwater"."partitions"
    JOIN unnest(%(lock_ids)s::integer[], %(epochs)s::bigint[]) AS "key" ("lock_id", "epoch") USING ("lock_id", "epoch")
    FOR NO KEY UPDATE OF "partitions" SKIP LOCKED
) AS "left"
WHERE "p"."lock_id" = "left"."lock_id"
RETURNING set_config('synchronous_commit', 'off', true);

-- name: unlock_partitions
-- Only what this session really holds: unlocking anything else would put a warning into the server's log. The news go out
-- at the commit, which comes after; nothing was written that would have to be on disk before.
SELECT
    pg_advisory_unlock('"headwater"."partitions"'::regclass::oid::integer, "objid"::integer),
    pg_notify('headwater_news', 'released'),
    set_config('synchronous_commit', 'off', true)
FROM pg_locks
WHERE "pid" = pg_backend_pid()
    AND "locktype" = 'advisory'
    AND "objsubid" = 2
    AND "classid" = '"headwater"."partitions"'::regclass
    AND "objid"::integer = ANY (%(lock_ids)s::integer[]);

-- name: claim_supervision
-- The lock decides who supervises; the generation keeps one that was replaced from writing its plan. Lock number 0 is
-- never a host's.
WITH "obtained" AS MATERIALIZED (
    SELECT pg_try_advisory_lock('"headwater"."hosts"'::regclass::oid::integer, 0) AS "yes"
)
UPDATE "headwater"."plan" SET "generation" = "generation" + 1, "supervisor" = %(host)s, "since" = clock_timestamp()
WHERE (SELECT "yes" FROM "obtained")
RETURNING "generation";

-- name: resign_supervision
SELECT pg_advisory_unlock('"headwater"."hosts"'::regclass::oid::integer, 0);
