-- As before, but who may append and no more is not believed what the arrays say of one another: with counts that contradict
-- them the head could be set back, and every later append would fail. Whoever has the owner's rights could do that anyway.
CREATE OR REPLACE FUNCTION "headwater"."append_v1"(
    p_streams text[], p_stream_of integer[], p_expected bigint[], p_counts integer[], p_units integer[],
    p_append_of integer[], p_ids uuid[], p_types text[], p_data "payload"[], p_metadata "payload"[],
    p_causations uuid[], p_correlations uuid[], p_tags text[], p_schema_versions integer[], p_times timestamptz[],
    OUT versions_before bigint[], OUT positions_before bigint[], OUT outcomes integer[]
) LANGUAGE plpgsql
-- The plans must not change as the tables grow: an index look-up for each element, always.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_total CONSTANT integer := cardinality(p_ids);
    v_position bigint;
    v_time timestamptz;
    v_head_time timestamptz;
    v_ordered boolean;
    v_latest timestamptz;
    v_versions bigint[];
    v_found boolean[];
    v_deleted boolean[];
    v_first integer := 1;
    v_last integer;
    v_stream integer;
    v_current bigint;
    v_expected bigint;
    v_refused boolean;
    v_events integer := 0;
    v_offsets integer[];
BEGIN
    IF NOT pg_has_role(session_user, current_user, 'USAGE') AND (
        cardinality(p_append_of) IS DISTINCT FROM v_total
        OR (SELECT sum("units") FROM unnest(p_units) AS "units") IS DISTINCT FROM cardinality(p_counts)
        OR 1 > ANY (p_units || p_counts)
        OR p_append_of IS DISTINCT FROM (
            SELECT array_agg("append" ORDER BY "append")
            FROM generate_subscripts(p_counts, 1) AS "append", generate_series(1, p_counts["append"])
        ))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'the arrays of the append contradict one another';
    END IF;
    -- Takes the lock and, as nearly always all goes well, gives out the positions in the same statement.
    UPDATE "headwater"."head" SET
        "position" = "position" + v_total,
        "created_at" = CASE WHEN p_times IS NULL THEN greatest("created_at", clock_timestamp()) ELSE "created_at" END
    RETURNING "position" - v_total, greatest("created_at", clock_timestamp()), "created_at"
    INTO v_position, v_time, v_head_time;
    IF p_times IS NULL THEN
        v_time := v_head_time;
    END IF;

    SELECT
        array_agg(coalesce("stream"."version", 0) ORDER BY "i"),
        array_agg("stream"."name" IS NOT NULL ORDER BY "i"),
        array_agg("stream"."deleted_at" IS NOT NULL ORDER BY "i")
    INTO v_versions, v_found, v_deleted
    FROM generate_subscripts(p_streams, 1) AS "i"
    LEFT JOIN "headwater"."streams" AS "stream" ON "stream"."name" = p_streams["i"];

    FOR v_unit IN 1 .. cardinality(p_units) LOOP
        v_last := v_first + p_units[v_unit] - 1;
        v_refused := false;
        FOR v_append IN v_first .. v_last LOOP
            v_stream := p_stream_of[v_append];
            v_current := v_versions[v_stream];
            v_expected := p_expected[v_append];
            IF v_deleted[v_stream] OR NOT (v_expected = -1 OR v_expected = v_current
                OR v_expected = -2 AND v_current = 0
                OR v_expected = -3 AND (v_found[v_stream] OR v_current > 0))
            THEN
                v_refused := true;
                outcomes := coalesce(outcomes, array_fill(0, ARRAY[cardinality(p_stream_of)]));
                outcomes[v_append] := CASE WHEN v_deleted[v_stream] THEN 2 ELSE 1 END;
            END IF;
            versions_before[v_append] := v_current;
        END LOOP;
        FOR v_append IN v_first .. v_last LOOP
            v_stream := p_stream_of[v_append];
            v_offsets[v_append] := v_events;
            v_events := v_events + p_counts[v_append];
            positions_before[v_append] := v_position;
            IF v_refused THEN
                IF outcomes[v_append] = 0 THEN
                    outcomes[v_append] := 3;
                END IF;
                IF NOT v_found[v_stream] AND v_versions[v_stream] = 0 THEN
                    versions_before[v_append] := NULL;
                END IF;
            ELSE
                v_position := v_position + p_counts[v_append];
                v_versions[v_stream] := v_versions[v_stream] + p_counts[v_append];
            END IF;
        END LOOP;
        v_first := v_last + 1;
    END LOOP;

    IF outcomes IS NOT NULL THEN
        UPDATE "headwater"."head" SET "position" = v_position;
        IF NOT 0 = ANY (outcomes) THEN
            RETURN;
        END IF;
    END IF;
    IF p_times IS NOT NULL THEN
        -- The head's time follows an import, but never into the future: later events would be drawn along.
        SELECT bool_and("time" >= "before"), max("time") INTO v_ordered, v_latest
        FROM (
            SELECT "time", coalesce(lag("time") OVER (ORDER BY "i"), v_head_time) AS "before"
            FROM (SELECT "i", coalesce(p_times["i"], v_time) AS "time" FROM generate_series(1, v_total) AS "i") AS "own"
            WHERE outcomes IS NULL OR outcomes[p_append_of["i"]] = 0
        ) AS "written";
        UPDATE "headwater"."head" SET
            "times_ordered" = "times_ordered" AND v_ordered AND v_latest <= clock_timestamp(),
            "created_at" = greatest("created_at", least(v_latest, clock_timestamp()));
    END IF;

    IF true = ANY (v_found) THEN
        UPDATE "headwater"."streams" AS "stream" SET "version" = v_versions["i"]
        FROM generate_subscripts(p_streams, 1) AS "i"
        WHERE v_found["i"] AND "stream"."name" = p_streams["i"] AND "stream"."version" <> v_versions["i"];
    END IF;
    IF false = ANY (v_found) THEN
        INSERT INTO "headwater"."streams" ("name", "version", "created_at")
        SELECT p_streams["i"], v_versions["i"], CASE
            WHEN p_times IS NULL THEN v_time
            ELSE coalesce(p_times[v_offsets[array_position(p_stream_of, "i")] + 1], v_time)
        END
        FROM generate_subscripts(p_streams, 1) AS "i" WHERE NOT v_found["i"] AND v_versions["i"] > 0;
    END IF;

    INSERT INTO "headwater"."events" (
        "position", "stream", "version", "event_id", "type", "data", "metadata", "causation_id", "correlation_id",
        "created_at", "tags", "schema_version"
    )
    SELECT
        positions_before["append"] + "i" - v_offsets["append"], p_streams[p_stream_of["append"]],
        versions_before["append"] + "i" - v_offsets["append"], p_ids["i"], p_types["i"], p_data["i"], p_metadata["i"],
        p_causations["i"], p_correlations["i"], coalesce(p_times["i"], v_time), p_tags["i"]::text[], coalesce(p_schema_versions["i"], 1)
    FROM (SELECT "i", p_append_of["i"] AS "append" FROM generate_series(1, v_total) AS "i" OFFSET 0) AS "sent"
    WHERE outcomes IS NULL OR outcomes["append"] = 0;

    IF p_tags IS NOT NULL THEN
        INSERT INTO "headwater"."event_tags" ("tag", "position")
        SELECT DISTINCT unnest(p_tags["i"]::text[]), positions_before["append"] + "i" - v_offsets["append"]
        FROM (SELECT "i", p_append_of["i"] AS "append" FROM generate_series(1, v_total) AS "i" OFFSET 0) AS "sent"
        WHERE p_tags["i"] IS NOT NULL AND (outcomes IS NULL OR outcomes["append"] = 0);
    END IF;
END $$;
