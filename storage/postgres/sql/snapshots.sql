-- Snapshots: several of each source, one for each version. Reading takes the highest, so that an older one that is saved
-- late never hides a newer one.

-- name: record_snapshot
-- A payload comes as an array of one, because arrays are what the store's payload types are sent as.
INSERT INTO "headwater"."snapshots" ("source", "version", "type", "data", "metadata", "created_at", "schema_version")
VALUES (
    %(source)s, %(version)s, %(type)s, (%(data)s::"payload"[])[1], (%(metadata)s::"payload"[])[1],
    coalesce(%(created_at)s, clock_timestamp()), %(schema_version)s
)
ON CONFLICT ("source", "version") DO UPDATE SET
    "type" = excluded."type", "data" = excluded."data", "metadata" = excluded."metadata",
    "created_at" = excluded."created_at", "schema_version" = excluded."schema_version";

-- name: read_snapshot
SELECT "source", "version", "type", "data", "metadata", "created_at", "schema_version" FROM "headwater"."snapshots"
WHERE "source" = %(source)s AND "version" <= %(up_to)s ORDER BY "version" DESC LIMIT 1;

-- name: delete_snapshots
DELETE FROM "headwater"."snapshots"
WHERE "source" = %(source)s AND (%(before)s::bigint IS NULL OR "version" < %(before)s::bigint);
