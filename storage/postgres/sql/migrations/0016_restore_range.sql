-- As before, but nobody reads events while a range comes back. A commit is visible a moment before other sessions are told
-- that the table has another partition: a reader in that moment could see that the range is not archived any more, and
-- plan without it. Who has to wait for the lock is told with it.
CREATE OR REPLACE FUNCTION "headwater"."restore_range_v1"(p_first bigint) RETURNS void LANGUAGE plpgsql
SET lock_timeout = '500ms' AS $$
DECLARE
    v_last bigint;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    LOCK TABLE ONLY "headwater"."events" IN ACCESS EXCLUSIVE MODE;
    UPDATE "headwater"."ranges" SET
        "archived_at" = NULL, "file" = NULL, "manifest_sha256" = NULL, "events" = NULL, "first_time" = NULL,
        "last_time" = NULL
    WHERE "first_position" = p_first RETURNING "last_position" INTO v_last;
    PERFORM "headwater"."attach_range_v1"(p_first, v_last);
    UPDATE "headwater"."partitioning" SET "restores" = "restores" + 1;
    DELETE FROM "headwater"."archived_streams" WHERE "first_position" = p_first;
    DELETE FROM "headwater"."archived_erasures"
    WHERE NOT EXISTS (SELECT FROM "headwater"."ranges" WHERE "archived_at" IS NOT NULL);
END $$;
