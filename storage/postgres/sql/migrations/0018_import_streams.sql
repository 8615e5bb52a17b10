-- As before, but a stream's row is written once: a new one begins with the version that it ends with.
CREATE OR REPLACE FUNCTION "headwater"."begin_import_v1"(
    p_streams text[], p_counts integer[], p_firsts integer[], p_total integer, p_times timestamptz[],
    OUT position_before bigint, OUT versions_before bigint[], OUT present timestamptz
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_position bigint;
    v_head_time timestamptz;
    v_ordered boolean;
    v_latest timestamptz;
    v_deleted boolean;
BEGIN
    SELECT "position", "created_at" INTO v_position, v_head_time FROM "headwater"."head" FOR UPDATE;
    present := greatest(v_head_time, clock_timestamp());
    v_latest := present;

    SELECT array_agg(coalesce("stream"."version", 0) ORDER BY "i"), bool_or("stream"."deleted_at" IS NOT NULL)
    INTO versions_before, v_deleted
    FROM generate_subscripts(p_streams, 1) AS "i"
    LEFT JOIN "headwater"."streams" AS "stream" ON "stream"."name" = p_streams["i"];
    IF v_deleted THEN
        RETURN;
    END IF;
    position_before := v_position;

    IF p_times IS NOT NULL THEN
        SELECT bool_and("time" >= "before"), max("time") INTO v_ordered, v_latest
        FROM (
            SELECT "time", coalesce(lag("time") OVER (ORDER BY "i"), v_head_time) AS "before"
            FROM (
                SELECT "i", coalesce("own", present) AS "time" FROM unnest(p_times) WITH ORDINALITY AS "given" ("own", "i")
            ) AS "each"
        ) AS "written";
    END IF;
    -- The head's time follows an import, but never into the future: later events would be drawn along.
    UPDATE "headwater"."head" SET
        "position" = v_position + p_total,
        "times_ordered" = "times_ordered" AND (p_times IS NULL OR v_ordered AND v_latest <= clock_timestamp()),
        "created_at" = greatest("created_at", least(v_latest, clock_timestamp()));

    INSERT INTO "headwater"."streams" ("name", "version", "created_at")
    SELECT p_streams["i"], versions_before["i"] + p_counts["i"], coalesce(p_times[p_firsts["i"]], present)
    FROM generate_subscripts(p_streams, 1) AS "i"
    ON CONFLICT ("name") DO UPDATE SET "version" = EXCLUDED."version";
END $$;
