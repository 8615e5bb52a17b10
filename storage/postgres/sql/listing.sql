-- What is known about streams. The store-wide order is shown as one of them: id 0, as old as the tables.

-- name: stream_info
SELECT "name", "stream_id", "version", "created_at", "deleted_at", "truncated_before"
FROM "headwater"."streams" WHERE "name" = %(stream)s;

-- name: all_info
SELECT "position", (SELECT min("applied_at") FROM "headwater"."migrations") FROM "headwater"."head";

-- name: count_streams
-- strpos takes the search literally: no character of it is a wildcard.
SELECT count(*) + (strpos('$all', %(search)s::text) > 0)::integer
FROM "headwater"."streams" WHERE strpos("name", %(search)s::text) > 0;

-- name: list_streams
-- Whoever asks for a page counts on the same order in the next one: the id decides between equals.
SELECT "name", "stream_id", "version", "created_at", "deleted_at", "truncated_before"
FROM (
    SELECT "name", "stream_id", "version", "created_at", "deleted_at", "truncated_before" FROM "headwater"."streams"
    UNION ALL
    SELECT '$all', 0, "position", (SELECT min("applied_at") FROM "headwater"."migrations"), NULL, 1
    FROM "headwater"."head"
) AS "listed"
WHERE strpos("name", %(search)s::text) > 0
ORDER BY
    CASE WHEN %(sort)s::text = 'name' THEN "name" END COLLATE "C",
    CASE %(sort)s::text WHEN 'version' THEN "version" WHEN 'stream_id' THEN "stream_id" END,
    CASE %(sort)s::text WHEN 'created_at' THEN "created_at" WHEN 'deleted_at' THEN "deleted_at" END,
    "stream_id"
LIMIT %(limit)s OFFSET %(offset)s;

-- name: list_streams_descending
SELECT "name", "stream_id", "version", "created_at", "deleted_at", "truncated_before"
FROM (
    SELECT "name", "stream_id", "version", "created_at", "deleted_at", "truncated_before" FROM "headwater"."streams"
    UNION ALL
    SELECT '$all', 0, "position", (SELECT min("applied_at") FROM "headwater"."migrations"), NULL, 1
    FROM "headwater"."head"
) AS "listed"
WHERE strpos("name", %(search)s::text) > 0
ORDER BY
    CASE WHEN %(sort)s::text = 'name' THEN "name" END COLLATE "C" DESC,
    CASE %(sort)s::text WHEN 'version' THEN "version" WHEN 'stream_id' THEN "stream_id" END DESC,
    CASE %(sort)s::text WHEN 'created_at' THEN "created_at" WHEN 'deleted_at' THEN "deleted_at" END DESC NULLS LAST,
    "stream_id" DESC
LIMIT %(limit)s OFFSET %(offset)s;
