-- Subjects' keys, wrapped. A key that was destroyed stays as a row without content, so that it is told from one that is
-- missing by mistake; it no longer says whose it was.

-- name: keys_by_id
SELECT "key_id", "subject", "wrapped_key", "master_key" FROM "headwater"."subject_keys"
WHERE "key_id" = ANY (%(key_ids)s::uuid[]);

-- name: keys_by_subject
SELECT "key_id", "subject", "wrapped_key", "master_key" FROM "headwater"."subject_keys"
WHERE "subject" = ANY (%(subjects)s::text[]);

-- name: add_keys
-- Two programs may make a subject's first key at the same time: the one that is first is everybody's.
INSERT INTO "headwater"."subject_keys" ("key_id", "subject", "wrapped_key", "master_key")
SELECT * FROM unnest(%(key_ids)s::uuid[], %(subjects)s::text[], %(wrapped)s::bytea[], %(master_keys)s::text[])
ON CONFLICT ("subject") DO NOTHING;

-- name: destroy_key
UPDATE "headwater"."subject_keys"
SET "subject" = NULL, "wrapped_key" = NULL, "master_key" = NULL, "destroyed_at" = clock_timestamp()
WHERE "subject" = %(subject)s RETURNING "key_id";

-- name: keys_of_other_masters
SELECT "key_id", "subject", "wrapped_key", "master_key" FROM "headwater"."subject_keys"
WHERE "master_key" <> %(master_key)s ORDER BY "key_id" LIMIT %(limit)s;

-- name: rewrap_keys
-- One that was destroyed meanwhile stays so.
UPDATE "headwater"."subject_keys" AS "key" SET "wrapped_key" = "new"."wrapped_key", "master_key" = "new"."master_key"
FROM unnest(%(key_ids)s::uuid[], %(wrapped)s::bytea[], %(master_keys)s::text[])
    AS "new" ("key_id", "wrapped_key", "master_key")
WHERE "key"."key_id" = "new"."key_id" AND "key"."destroyed_at" IS NULL;
