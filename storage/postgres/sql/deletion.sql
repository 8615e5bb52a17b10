-- Deleting streams and the beginnings of streams, and taking a soft delete back.

-- name: delete_stream
SELECT "version", "outcome" FROM "headwater"."delete_stream_v1"(%(stream)s, %(expected)s, %(hard)s);

-- name: undelete_stream
-- The head's row first, as everywhere, by a part of the statement that is materialised before the rest needs it.
WITH "order" AS MATERIALIZED (SELECT "only" FROM "headwater"."head" FOR UPDATE)
UPDATE "headwater"."streams" SET "deleted_at" = NULL
FROM "order" WHERE "streams"."name" = %(stream)s
RETURNING "streams"."stream_id";

-- name: truncate_stream
SELECT "removed", "outcome" FROM "headwater"."truncate_stream_v1"(%(stream)s, %(before)s);
