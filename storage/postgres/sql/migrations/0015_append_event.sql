-- The append of one event to one stream, which is what a program with one writer calls each time: three statements, and
-- no arrays. The head's row is locked first, as everywhere. An expected version below 0 means: -1 any, -2 no stream,
-- -3 stream exists. Returns the version and the position before the event; null, and nothing is written, when the stream
-- is not as expected or is deleted: "append_one_v1" tells which. An event id that is stored already breaks the call.
CREATE FUNCTION "headwater"."append_event_v1"(
    p_stream text, p_expected bigint, p_id uuid, p_type text, p_data "payload", p_metadata "payload", p_causation uuid,
    p_correlation uuid, p_tags text, p_schema_version integer
) RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_position bigint;
    v_version bigint;
    v_time timestamptz;
BEGIN
    UPDATE "headwater"."head" SET
        "position" = "position" + 1, "created_at" = greatest("created_at", clock_timestamp())
    RETURNING "position" - 1, "created_at" INTO v_position, v_time;

    UPDATE "headwater"."streams" SET "version" = "version" + 1
    WHERE "name" = p_stream AND "deleted_at" IS NULL
        AND (p_expected = "version" OR p_expected IN (-1, -3) OR p_expected = -2 AND "version" = 0)
    RETURNING "version" - 1 INTO v_version;
    IF NOT FOUND AND p_expected IN (-1, -2, 0) THEN
        INSERT INTO "headwater"."streams" ("name", "version", "created_at") VALUES (p_stream, 1, v_time)
        ON CONFLICT ("name") DO NOTHING RETURNING 0 INTO v_version;
    END IF;
    IF v_version IS NULL THEN
        UPDATE "headwater"."head" SET "position" = v_position;
        RETURN NULL;
    END IF;

    INSERT INTO "headwater"."events" (
        "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id",
        "created_at", "tags", "schema_version"
    ) VALUES (
        v_position + 1, p_stream, v_version + 1, p_id, p_type, p_data, p_metadata, p_causation, p_correlation,
        v_time, p_tags::text[], coalesce(p_schema_version, 1)
    );
    IF p_tags IS NOT NULL THEN
        INSERT INTO "headwater"."event_tags" ("tag", "position")
        SELECT DISTINCT unnest(p_tags::text[]), v_position + 1;
    END IF;
    RETURN ARRAY[v_version, v_position];
END $$;
