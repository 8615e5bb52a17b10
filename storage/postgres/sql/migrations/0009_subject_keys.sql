-- The keys under which payloads are encrypted, one for each subject: destroying one erases what was said of that subject,
-- in events, snapshots and replays alike.

CREATE TABLE "headwater"."subject_keys" (
    -- Random, and all that an event says about its key.
    "key_id" uuid PRIMARY KEY,
    -- Null once the key is destroyed: the row then says that it was, and no longer whose it was.
    "subject" text COLLATE "C" UNIQUE,
    -- The key under a master key that the database does not know, and that master key's name.
    "wrapped_key" bytea,
    "master_key" text COLLATE "C",
    "created_at" timestamptz NOT NULL DEFAULT clock_timestamp(),
    "destroyed_at" timestamptz,
    CHECK (num_nonnulls("subject", "wrapped_key", "master_key") = CASE WHEN "destroyed_at" IS NULL THEN 3 ELSE 0 END)
);
