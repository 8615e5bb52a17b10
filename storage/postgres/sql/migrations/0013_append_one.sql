-- A lone append: what append_v1 does for many, without the bookkeeping that tells them apart. It is what a program with
-- one writer calls each time, and a third of the server's work for an append of one event was that bookkeeping.
-- The head's row is locked first, as everywhere. An expected version below 0 means: -1 any, -2 no stream, -3 stream exists.
-- "outcome" is 0 written, 1 wrong version, 2 stream deleted; "version_before" is null for a stream that is missing and was
-- not made. An event id that is stored already breaks the call by the unique index.
CREATE FUNCTION "headwater"."append_one_v1"(
    p_stream text, p_expected bigint, p_ids uuid[], p_types text[], p_data "payload"[], p_metadata "payload"[],
    p_causations uuid[], p_correlations uuid[], p_tags text[], p_schema_versions integer[],
    OUT version_before bigint, OUT position_before bigint, OUT outcome integer
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    v_total CONSTANT integer := cardinality(p_ids);
    v_time timestamptz;
    v_deleted boolean;
    v_version bigint;
BEGIN
    UPDATE "headwater"."head" SET
        "position" = "position" + v_total, "created_at" = greatest("created_at", clock_timestamp())
    RETURNING "position" - v_total, "created_at" INTO position_before, v_time;

    SELECT "version", "deleted_at" IS NOT NULL INTO version_before, v_deleted
    FROM "headwater"."streams" WHERE "name" = p_stream;
    v_version := coalesce(version_before, 0);
    outcome := CASE
        WHEN v_deleted THEN 2
        WHEN p_expected = -1 OR p_expected = v_version OR p_expected = -2 AND v_version = 0
            OR p_expected = -3 AND version_before IS NOT NULL THEN 0
        ELSE 1
    END;
    IF outcome <> 0 THEN
        UPDATE "headwater"."head" SET "position" = position_before;
        RETURN;
    END IF;

    IF version_before IS NULL THEN
        INSERT INTO "headwater"."streams" ("name", "version", "created_at") VALUES (p_stream, v_total, v_time);
    ELSE
        UPDATE "headwater"."streams" SET "version" = v_version + v_total WHERE "name" = p_stream;
    END IF;
    version_before := v_version;

    INSERT INTO "headwater"."events" (
        "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id",
        "created_at", "tags", "schema_version"
    )
    SELECT
        position_before + "i", p_stream, v_version + "i", p_ids["i"], p_types["i"], p_data["i"], p_metadata["i"],
        p_causations["i"], p_correlations["i"], v_time, p_tags["i"]::text[], coalesce(p_schema_versions["i"], 1)
    FROM generate_series(1, v_total) AS "i";
    IF p_tags IS NOT NULL THEN
        INSERT INTO "headwater"."event_tags" ("tag", "position")
        SELECT DISTINCT unnest(p_tags["i"]::text[]), position_before + "i"
        FROM generate_series(1, v_total) AS "i" WHERE p_tags["i"] IS NOT NULL;
    END IF;
END $$;
