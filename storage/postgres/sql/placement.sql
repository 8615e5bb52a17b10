-- Who is there, what should run where, and what the supervisor decided. A host is alive while it holds the advisory lock
-- of its row; a partition is owned while the lock of its row is held, by the session of the host that it names.

-- name: placement_hosts
-- The hosts that hold their own lock now, however they ended: nobody has to take note of a death.
SELECT "h"."host", "h"."node", "h"."draining", "h"."facts", "h"."started_at"
FROM "headwater"."hosts" AS "h"
JOIN pg_locks AS "l"
    ON "l"."locktype" = 'advisory'
    AND "l"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
    AND "l"."classid" = '"headwater"."hosts"'::regclass
    AND "l"."objid"::integer = "h"."lock_id"
    AND "l"."objsubid" = 2
    AND "l"."granted"
ORDER BY "h"."host";

-- name: placement_partitions
-- The partitions that should run, with the owner only while the lock is really held. While their number is being changed
-- none of them should.
SELECT
    "p"."lock_id", "s"."name", "p"."partition",
    CASE WHEN "l"."objid" IS NOT NULL THEN "p"."owner" END AS "owner",
    "p"."standby", "p"."wanted_owner", "p"."wanted_standby",
    "move"."arguments" ->> 'node' AS "target", "move"."command_id" AS "move",
    coalesce(extract(epoch FROM clock_timestamp() - "move"."issued_at"), 0)::float8 AS "asked",
    CASE WHEN "p"."closed" THEN 0 ELSE greatest(
        CASE WHEN "s"."source" = '$all' THEN "h"."position" ELSE coalesce("t"."version", 0) END - "p"."checkpoint", 0
    ) END AS "lag",
    coalesce(extract(epoch FROM "p"."granted_at"), 0)::float8 AS "granted_at",
    "s"."options"
FROM "headwater"."partitions" AS "p"
JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id")
CROSS JOIN "headwater"."head" AS "h"
-- The checkpoint counts in the source: in a single stream's versions, if it is one.
LEFT JOIN "headwater"."streams" AS "t" ON "t"."name" = "s"."source"
LEFT JOIN pg_locks AS "l"
    ON "l"."locktype" = 'advisory'
    AND "l"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
    AND "l"."classid" = '"headwater"."partitions"'::regclass
    AND "l"."objid"::integer = "p"."lock_id"
    AND "l"."objsubid" = 2
    AND "l"."granted"
LEFT JOIN LATERAL (
    SELECT "c"."arguments", "c"."command_id", "c"."issued_at" FROM "headwater"."commands" AS "c"
    WHERE "c"."subscription_id" = "p"."subscription_id" AND "c"."applied_at" IS NULL AND "c"."verb" = 'move'
        AND coalesce("c"."partition", "p"."partition") = "p"."partition"
    ORDER BY "c"."command_id" DESC LIMIT 1
) AS "move" ON true
-- Without a handler it is pulled by programs of the users, and nobody's to place.
WHERE "s"."wanted" <> 'stopped' AND "s"."repartition_to" IS NULL AND "s"."handler" <> ''
ORDER BY "p"."lock_id";

-- name: placement_moved
-- A move is done when every partition that it names is owned on its node; one that was overtaken by a newer is, too.
UPDATE "headwater"."commands" AS "c" SET "applied_at" = clock_timestamp(), "outcome" = 'moved'
WHERE "c"."applied_at" IS NULL AND "c"."verb" = 'move' AND NOT EXISTS (
    SELECT FROM "headwater"."partitions" AS "p"
    WHERE "p"."subscription_id" = "c"."subscription_id"
        AND coalesce("c"."partition", "p"."partition") = "p"."partition"
        AND NOT EXISTS (
            SELECT FROM "headwater"."hosts" AS "h"
            WHERE "h"."host" = "p"."owner" AND "h"."host" = "p"."wanted_owner" AND "h"."node" = "c"."arguments" ->> 'node'
        )
        AND NOT EXISTS (
            SELECT FROM "headwater"."commands" AS "newer"
            WHERE "newer"."subscription_id" = "c"."subscription_id" AND "newer"."verb" = 'move'
                AND coalesce("newer"."partition", "p"."partition") = "p"."partition"
                AND "newer"."command_id" > "c"."command_id"
        )
);

-- name: placement_end_moves
-- Those that cannot be done, as the supervisor found, and those of subscriptions that nobody runs any more.
UPDATE "headwater"."commands" AS "c"
SET "applied_at" = clock_timestamp(), "outcome" = coalesce("ended"."outcome", 'given up: it is stopped')
FROM "headwater"."subscriptions" AS "s", "headwater"."commands" AS "open"
LEFT JOIN unnest(%(command_ids)s::bigint[], %(outcomes)s::text[]) AS "ended" ("command_id", "outcome")
    ON "ended"."command_id" = "open"."command_id"
WHERE "open"."applied_at" IS NULL
    AND "open"."verb" = 'move'
    AND "s"."subscription_id" = "open"."subscription_id"
    AND ("ended"."command_id" IS NOT NULL OR "s"."wanted" = 'stopped')
    AND "c"."command_id" = "open"."command_id"
    AND "c"."applied_at" IS NULL
    AND (SELECT "generation" FROM "headwater"."plan" FOR SHARE) = %(generation)s;

-- name: placement_assign
-- Nothing is written by a supervisor that has been replaced: the generation it was given is no longer the plan's. Where
-- nobody should stand by any more, whoever did lets go: what it needs for that may be what another partition waits for.
UPDATE "headwater"."partitions" AS "p"
SET
    "wanted_owner" = "new"."owner", "wanted_standby" = "new"."standby",
    "standby" = CASE WHEN "new"."standby" IS NOT NULL OR "p"."standby" = "new"."owner" THEN "p"."standby" END
FROM unnest(%(lock_ids)s::integer[], %(owners)s::text[], %(standbys)s::text[]) AS "new" ("lock_id", "owner", "standby")
WHERE "p"."lock_id" = "new"."lock_id"
    AND (SELECT "generation" FROM "headwater"."plan" FOR SHARE) = %(generation)s
RETURNING pg_notify('headwater_news', 'assigned');

-- name: placement_assigned
-- What one host should own or stand by for, and whether it should leave: one row at least, as long as it is known. Who
-- stands by stays until its successor has said that it is ready: until then nobody else could take over at once.
SELECT
    "h"."draining", "h"."facts" #>> '{troubles,mark}' AS "told", "p"."lock_id", "s"."name", "p"."partition", "s"."handler", "s"."options", "s"."wanted",
    "p"."wanted_owner", "p"."wanted_standby", "p"."owner", "p"."standby",
    EXISTS (
        SELECT FROM "headwater"."commands" AS "c"
        WHERE "c"."subscription_id" = "p"."subscription_id" AND "c"."partition" = "p"."partition"
            AND "c"."applied_at" IS NULL
    ) AS "commanded",
    "s"."wanted_why"
FROM "headwater"."hosts" AS "h"
LEFT JOIN ("headwater"."partitions" AS "p" JOIN "headwater"."subscriptions" AS "s" USING ("subscription_id"))
    ON "h"."host" IN ("p"."wanted_owner", "p"."wanted_standby", "p"."standby")
    AND "s"."wanted" <> 'stopped'
    AND "s"."repartition_to" IS NULL
WHERE "h"."host" = %(host)s;

-- name: placement_ready
UPDATE "headwater"."partitions" SET "standby" = %(host)s
WHERE "lock_id" = ANY (%(lock_ids)s::integer[]) AND "wanted_standby" = %(host)s
RETURNING pg_notify('headwater_news', 'ready');

-- name: placement_troubles
-- They go with the host's row, and are forgotten with it: whoever comes in its place is tried anew.
UPDATE "headwater"."hosts"
SET "facts" = ("facts"::jsonb || jsonb_build_object('troubles', %(troubles)s::jsonb))::json
WHERE "host" = %(host)s
RETURNING pg_notify('headwater_news', 'ready');

-- name: placement_drain
-- By host or by node: what an operator knows is the node.
UPDATE "headwater"."hosts" SET "draining" = true
WHERE "host" = %(name)s OR "node" = %(name)s
RETURNING "host", pg_notify('headwater_news', 'wanted');

-- name: placement_forget
-- Hosts that hold no lock and did not come a moment ago: a host takes its lock in the statement that makes its row.
DELETE FROM "headwater"."hosts" AS "h"
WHERE "h"."started_at" < clock_timestamp() - interval '1 minute' AND NOT EXISTS (
    SELECT FROM pg_locks AS "l"
    WHERE "l"."locktype" = 'advisory'
        AND "l"."database" = (SELECT "oid" FROM pg_database WHERE "datname" = current_database())
        AND "l"."classid" = '"headwater"."hosts"'::regclass
        AND "l"."objid"::integer = "h"."lock_id"
        AND "l"."objsubid" = 2
);
