-- The append: many callers' appends in one call, each with its own outcome.
-- The order of locks is the whole secret: the head's row first, everything else under it. One mutex cannot deadlock,
-- and whatever is looked at after it is final. Whoever changes a stream's version or status takes it first, too.

-- What is sent: p_streams, each stream once; p_stream_of, p_expected and p_counts, an element for each append; p_units,
-- how many appends in turn stand or fall together (each stream once within a unit); p_append_of, which append each event
-- belongs to; then the events' columns, null for a column that is null throughout.
-- An expected version below 0 means: -1 any, -2 no stream, -3 stream exists.
-- What comes back, an element for each append: the version and the position before its first event (the version is null
-- for a stream that is missing and was not made), and the outcome: 0 written, 1 wrong version, 2 stream deleted,
-- 3 another append of the unit was refused. "outcomes" is null when all were written.
-- An event id that is stored already breaks the whole call by the unique index: that is cheaper than to look for each.
CREATE FUNCTION "headwater"."append_v1"(
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

-- The append on a condition: nothing that matches the filter may have appeared after a position. One unit in a call,
-- so that the condition sees everything before it. conflict is the position of what spoilt it; then nothing is written.
CREATE FUNCTION "headwater"."append_if_v1"(
    p_after bigint, p_with_types text[], p_with_tags text[], p_with_streams text[], p_with_categories text[],
    p_with_prefix text,
    p_streams text[], p_stream_of integer[], p_expected bigint[], p_counts integer[], p_units integer[],
    p_append_of integer[], p_ids uuid[], p_types text[], p_data "payload"[], p_metadata "payload"[],
    p_causations uuid[], p_correlations uuid[], p_tags text[], p_schema_versions integer[], p_times timestamptz[],
    OUT versions_before bigint[], OUT positions_before bigint[], OUT outcomes integer[], OUT conflict bigint
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    IF p_with_tags IS NOT NULL THEN
        SELECT "position" INTO conflict
        FROM "headwater"."event_tags" JOIN "headwater"."events" USING ("position")
        WHERE "tag" = p_with_tags[1] AND "position" > p_after AND "tags" @> p_with_tags
            AND (p_with_types IS NULL OR "type" = ANY (p_with_types))
            AND (p_with_streams IS NULL OR "stream" = ANY (p_with_streams))
            AND (p_with_categories IS NULL OR split_part("stream", '-', 1) = ANY (p_with_categories))
            AND (p_with_prefix IS NULL OR starts_with("stream", p_with_prefix))
        ORDER BY "position" LIMIT 1;
    ELSE
        SELECT "position" INTO conflict FROM "headwater"."events"
        WHERE "position" > p_after
            AND (p_with_types IS NULL OR "type" = ANY (p_with_types))
            AND (p_with_streams IS NULL OR "stream" = ANY (p_with_streams))
            AND (p_with_categories IS NULL OR split_part("stream", '-', 1) = ANY (p_with_categories))
            AND (p_with_prefix IS NULL OR starts_with("stream", p_with_prefix))
        ORDER BY "position" LIMIT 1;
    END IF;
    IF conflict IS NULL THEN
        SELECT "written"."versions_before", "written"."positions_before", "written"."outcomes"
        INTO versions_before, positions_before, outcomes
        FROM "headwater"."append_v1"(
            p_streams, p_stream_of, p_expected, p_counts, p_units, p_append_of, p_ids, p_types, p_data, p_metadata,
            p_causations, p_correlations, p_tags, p_schema_versions, p_times
        ) AS "written";
    END IF;
END $$;

-- The position before the first event created at or after a time, by halving: times rise with positions, unless an
-- import brought its own.
CREATE FUNCTION "headwater"."position_at_v1"(p_when timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0;
    v_high bigint;
    v_middle bigint;
    v_ordered boolean;
    v_event record;
BEGIN
    SELECT "position", "times_ordered" INTO v_high, v_ordered FROM "headwater"."head";
    IF NOT v_ordered THEN
        RETURN coalesce(
            (SELECT min("position") - 1 FROM "headwater"."events" WHERE "created_at" >= p_when), v_high
        );
    END IF;
    -- Everything up to v_low is older; everything above v_high is not.
    WHILE v_low < v_high LOOP
        v_middle := v_low + (v_high - v_low + 1) / 2;
        SELECT "position", "created_at" INTO v_event FROM "headwater"."events"
        WHERE "position" <= v_middle AND "position" > v_low ORDER BY "position" DESC LIMIT 1;
        IF v_event IS NULL OR v_event."created_at" < p_when THEN
            v_low := v_middle;
        ELSE
            v_high := v_event."position" - 1;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;
