-- The append of many lone events, each to a stream of its own and at the present time: what group commit mostly sends. All
-- others wait while it runs, so nothing is done here append by append. The head's row is locked first, as everywhere. The
-- i-th element of each array is the i-th event's; an expected version below 0 means: -1 any, -2 no stream, -3 stream exists.
-- Returns the position before the first event, and then the version before each; null, and nothing is written, when any
-- of them must be refused: "append_v1" tells which, and writes the others. An event id that is stored already breaks the call.
CREATE FUNCTION "headwater"."append_events_v1"(
    p_streams text[], p_expected bigint[], p_ids uuid[], p_types text[], p_data "payload"[], p_metadata "payload"[],
    p_causations uuid[], p_correlations uuid[], p_tags text[], p_schema_versions integer[]
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_total CONSTANT integer := cardinality(p_ids);
    v_position bigint;
    v_time timestamptz;
    v_versions bigint[];
    v_missing integer;
    v_refused boolean;
BEGIN
    UPDATE "headwater"."head" SET
        "position" = "position" + v_total, "created_at" = greatest("created_at", clock_timestamp())
    RETURNING "position" - v_total, "created_at" INTO v_position, v_time;

    SELECT
        array_agg(coalesce("stream"."version", 0) ORDER BY "i"),
        count(*) - count("stream"."version"),
        bool_or("stream"."deleted_at" IS NOT NULL OR NOT (
            p_expected["i"] = -1
            OR p_expected["i"] = coalesce("stream"."version", 0)
            OR p_expected["i"] = -2 AND coalesce("stream"."version", 0) = 0
            OR p_expected["i"] = -3 AND "stream"."version" IS NOT NULL))
    INTO v_versions, v_missing, v_refused
    FROM generate_series(1, v_total) AS "i"
    LEFT JOIN "headwater"."streams" AS "stream" ON "stream"."name" = p_streams["i"];
    IF v_refused THEN
        UPDATE "headwater"."head" SET "position" = v_position;
        RETURN NULL;
    END IF;

    IF v_missing < v_total THEN
        UPDATE "headwater"."streams" AS "stream" SET "version" = "version" + 1
        FROM generate_series(1, v_total) AS "i" WHERE "stream"."name" = p_streams["i"];
    END IF;
    IF v_missing > 0 THEN
        INSERT INTO "headwater"."streams" ("name", "version", "created_at")
        SELECT p_streams["i"], 1, v_time FROM generate_series(1, v_total) AS "i" WHERE v_versions["i"] = 0
        ON CONFLICT ("name") DO NOTHING;
    END IF;
    INSERT INTO "headwater"."events" (
        "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id",
        "created_at", "tags", "schema_version"
    )
    SELECT
        v_position + "i", p_streams["i"], v_versions["i"] + 1, p_ids["i"], p_types["i"], p_data["i"], p_metadata["i"],
        p_causations["i"], p_correlations["i"], v_time, p_tags["i"]::text[], coalesce(p_schema_versions["i"], 1)
    FROM generate_series(1, v_total) AS "i";
    IF p_tags IS NOT NULL THEN
        INSERT INTO "headwater"."event_tags" ("tag", "position")
        SELECT DISTINCT unnest(p_tags["i"]::text[]), v_position + "i"
        FROM generate_series(1, v_total) AS "i" WHERE p_tags["i"] IS NOT NULL;
    END IF;
    RETURN v_position || v_versions;
END $$;
