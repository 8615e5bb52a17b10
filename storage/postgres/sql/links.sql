-- Links: events that are stored elsewhere, in a further stream.

-- name: link
SELECT "version", "outcome", "culprit" FROM "headwater"."link_v1"(%(stream)s, %(expected)s, %(ids)s);
