-- What is done to streams besides appending: links, deletion, truncation. And the guard of the streams' own rows.
-- Each function takes the head's row first, as the append does: one mutex for all that touches versions, no deadlock.
-- Each opens the guard for itself only: it is shut again when the function returns, also within a caller's transaction, and by
-- the rollback of whatever fails in between. (A SET on the function would do the same, but only a superuser may make one.)

-- A version that falls, a name or an identity that changes: no append and no delete does that.
CREATE TRIGGER "streams_keep_counting" BEFORE UPDATE ON "headwater"."streams" FOR EACH ROW
    WHEN (NEW."version" < OLD."version" OR NEW."name" <> OLD."name" OR NEW."stream_id" <> OLD."stream_id"
        OR NEW."created_at" <> OLD."created_at" OR NEW."truncated_before" < OLD."truncated_before")
    EXECUTE FUNCTION "headwater"."refuse_change_v1"();

-- Puts stored events into a further stream. "outcome" is 0 linked, 1 wrong version, 2 stream deleted, 3 an event is not
-- stored, 4 an event is in the stream already; "culprit" names that event. "version" is the stream's, after or instead;
-- null for a stream that is missing. An expected version below 0 means: -1 any, -2 no stream, -3 stream exists.
CREATE FUNCTION "headwater"."link_v1"(
    p_stream text, p_expected bigint, p_ids uuid[], OUT version bigint, OUT outcome integer, OUT culprit uuid
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_stream "headwater"."streams"%ROWTYPE;
    v_found boolean;
    v_before bigint;
    v_positions bigint[];
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    SELECT * INTO v_stream FROM "headwater"."streams" WHERE "name" = p_stream;
    v_found := FOUND;
    version := v_stream."version";
    v_before := coalesce(version, 0);

    IF v_stream."deleted_at" IS NOT NULL THEN
        outcome := 2;
        RETURN;
    ELSIF NOT (p_expected = -1 OR p_expected = v_before OR p_expected = -2 AND v_before = 0 OR p_expected = -3 AND v_found)
    THEN
        outcome := 1;
        RETURN;
    END IF;

    SELECT array_agg("event"."position" ORDER BY "i") INTO v_positions
    FROM generate_subscripts(p_ids, 1) AS "i"
    LEFT JOIN "headwater"."events" AS "event" ON "event"."event_id" = p_ids["i"];
    IF array_position(v_positions, NULL) IS NOT NULL THEN
        outcome := 3;
        culprit := p_ids[array_position(v_positions, NULL)];
        RETURN;
    END IF;

    SELECT "event"."event_id" INTO culprit
    FROM generate_subscripts(p_ids, 1) AS "i"
    JOIN "headwater"."events" AS "event" ON "event"."position" = v_positions["i"]
    LEFT JOIN "headwater"."links" AS "link" ON "link"."stream" = p_stream AND "link"."position" = v_positions["i"]
    WHERE "event"."stream" = p_stream OR "link"."stream" IS NOT NULL
    ORDER BY "i" LIMIT 1;
    IF FOUND THEN
        outcome := 4;
        RETURN;
    END IF;

    outcome := 0;
    version := v_before + cardinality(p_ids);
    IF v_found THEN
        UPDATE "headwater"."streams" AS "stream" SET "version" = link_v1."version", "has_links" = true
        WHERE "stream"."name" = p_stream;
    ELSE
        INSERT INTO "headwater"."streams" ("name", "version", "has_links") VALUES (p_stream, version, true);
    END IF;
    INSERT INTO "headwater"."links" ("stream", "version", "position")
    SELECT p_stream, v_before + "i", v_positions["i"] FROM generate_subscripts(p_ids, 1) AS "i";
END $$;

-- Deletes a stream. "outcome" is 0 deleted, 1 wrong version, 2 deleted already, 3 missing; "version" is the stream's.
-- For good (p_hard): its own events, every link to them, its links, its row, and the snapshots of its name. What the stream
-- only links to belongs to others and stays. Positions and the versions of other streams are not given out again.
CREATE FUNCTION "headwater"."delete_stream_v1"(
    p_stream text, p_expected bigint, p_hard boolean, OUT version bigint, OUT outcome integer
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    v_stream "headwater"."streams"%ROWTYPE;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    SELECT * INTO v_stream FROM "headwater"."streams" WHERE "name" = p_stream;
    version := v_stream."version";
    IF version IS NULL THEN
        -- A number says that there are events: that is wrong before it is missing.
        outcome := CASE WHEN p_expected > 0 THEN 1 ELSE 3 END;
        RETURN;
    ELSIF v_stream."deleted_at" IS NOT NULL AND NOT p_hard THEN
        outcome := 2;
        RETURN;
    ELSIF NOT (p_expected IN (-1, -3, version) OR p_expected = -2 AND version = 0) THEN
        outcome := 1;
        RETURN;
    END IF;

    outcome := 0;
    IF NOT p_hard THEN
        UPDATE "headwater"."streams" SET "deleted_at" = clock_timestamp() WHERE "name" = p_stream;
        RETURN;
    END IF;
    PERFORM set_config('headwater.allow_change', 'on', true);
    PERFORM "headwater"."remove_events_v1"(p_stream, NULL);
    DELETE FROM "headwater"."links" WHERE "stream" = p_stream;
    DELETE FROM "headwater"."snapshots" WHERE "source" = p_stream;
    DELETE FROM "headwater"."streams" WHERE "name" = p_stream;
    PERFORM set_config('headwater.allow_change', 'off', true);
END $$;

-- Removes a stream's own events below a version (all of them for null), with their tags and every link to them; returns how
-- many events there were. The caller has locked the head and opened the guard.
CREATE FUNCTION "headwater"."remove_events_v1"(p_stream text, p_before bigint) RETURNS bigint LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_removed bigint;
BEGIN
    DELETE FROM "headwater"."event_tags" USING "headwater"."events" AS "event"
    WHERE "event_tags"."position" = "event"."position" AND "event_tags"."tag" = ANY ("event"."tags")
        AND "event"."stream" = p_stream AND "event"."version" < coalesce(p_before, 9223372036854775807);
    DELETE FROM "headwater"."links" USING "headwater"."events" AS "event"
    WHERE "links"."position" = "event"."position"
        AND "event"."stream" = p_stream AND "event"."version" < coalesce(p_before, 9223372036854775807);
    DELETE FROM "headwater"."events"
    WHERE "stream" = p_stream AND "version" < coalesce(p_before, 9223372036854775807);
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    RETURN v_removed;
END $$;

-- Removes a stream's own events below a version, and its links below it. "outcome" is 0 done, 2 stream deleted, 3 missing.
CREATE FUNCTION "headwater"."truncate_stream_v1"(
    p_stream text, p_before bigint, OUT removed bigint, OUT outcome integer
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
DECLARE
    v_stream "headwater"."streams"%ROWTYPE;
BEGIN
    PERFORM FROM "headwater"."head" FOR UPDATE;
    SELECT * INTO v_stream FROM "headwater"."streams" WHERE "name" = p_stream;
    removed := 0;
    outcome := CASE WHEN v_stream."name" IS NULL THEN 3 WHEN v_stream."deleted_at" IS NOT NULL THEN 2 ELSE 0 END;
    IF outcome = 0 THEN
        PERFORM set_config('headwater.allow_change', 'on', true);
        removed := "headwater"."remove_events_v1"(p_stream, p_before);
        DELETE FROM "headwater"."links" WHERE "stream" = p_stream AND "version" < p_before;
        PERFORM set_config('headwater.allow_change', 'off', true);
        -- Never above the next version: what is appended later must be readable.
        UPDATE "headwater"."streams"
        SET "truncated_before" = greatest("truncated_before", least(p_before, "version" + 1)) WHERE "name" = p_stream;
    END IF;
END $$;
