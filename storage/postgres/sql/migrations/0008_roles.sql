-- Three group roles for each store: append, run, admin. Roles belong to the whole server, so their names have the database
-- and the schema in them; what they are called stands in a table, because a copied or renamed database keeps its grants.
-- They are made after the migrations, when the migrating user may do that, and granted what the newest tables and
-- functions need; see "grant_roles_v1". Without them everything works as before, for the owner of the tables.

CREATE TABLE "headwater"."roles" (
    "kind" text PRIMARY KEY CHECK ("kind" IN ('append', 'run', 'admin')),
    "name" text NOT NULL
);

-- Returns why the roles cannot be made; null when they are there.
CREATE FUNCTION "headwater"."make_roles_v1"() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_schema CONSTANT text := btrim('"headwater"', '"');
    v_super CONSTANT boolean := (SELECT "rolsuper" FROM pg_roles WHERE "rolname" = current_user);
    v_may_create CONSTANT boolean := (SELECT "rolsuper" OR "rolcreaterole" FROM pg_roles WHERE "rolname" = current_user);
    v_about text := current_database() || '.' || v_schema;
    v_mark CONSTANT text := left(md5(quote_ident(current_database()) || '.' || quote_ident(v_schema)), 6);
    v_kind text;
    v_name text;
BEGIN
    -- Names are cut to 63 bytes; the mark keeps two apart that are cut alike.
    WHILE octet_length(v_about) > 48 LOOP
        v_about := left(v_about, -1);
    END LOOP;
    FOREACH v_kind IN ARRAY ARRAY['append', 'run', 'admin'] LOOP
        SELECT "roles"."name" INTO v_name FROM "headwater"."roles"
        JOIN pg_roles AS "there" ON "there"."rolname" = "roles"."name" WHERE "kind" = v_kind;
        IF FOUND THEN
            CONTINUE;
        END IF;
        v_name := v_about || '_' || v_kind || '_' || v_mark;
        IF EXISTS (SELECT FROM pg_roles WHERE "rolname" = v_name) THEN
            -- Left over from a database of this name that was dropped; what it can do and who is in it is not known.
            RETURN format('a role %I is there already, of another store or of one that was dropped', v_name);
        ELSIF NOT v_may_create THEN
            RETURN format('%I may not create roles', current_user);
        END IF;
        EXECUTE format('CREATE ROLE %I NOLOGIN', v_name);
        IF v_kind = 'admin' AND NOT v_super THEN
            EXECUTE format('GRANT %I TO %I', v_name, current_user);
        END IF;
        INSERT INTO "headwater"."roles" ("kind", "name") VALUES (v_kind, v_name)
        ON CONFLICT ("kind") DO UPDATE SET "name" = excluded."name";
    END LOOP;
    RETURN NULL;
END $$;

-- Grants the roles what they need of everything that is there now. Whatever is not named here, nobody but the admin gets.
CREATE FUNCTION "headwater"."grant_roles_v1"() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_schema CONSTANT regnamespace := '"headwater"';
    v_append CONSTANT text := (SELECT "name" FROM "headwater"."roles" WHERE "kind" = 'append');
    v_run CONSTANT text := (SELECT "name" FROM "headwater"."roles" WHERE "kind" = 'run');
    v_admin CONSTANT text := (SELECT "name" FROM "headwater"."roles" WHERE "kind" = 'admin');
    v_each record;
    v_table text;
BEGIN
    -- The admin owns all of it: functions that run with their owner's rights then have those and no more, whoever
    -- migrated. Nothing is locked that has this owner already.
    IF (SELECT "nspowner" <> quote_ident(v_admin)::regrole FROM pg_namespace WHERE "oid" = v_schema) THEN
        EXECUTE format('ALTER SCHEMA "headwater" OWNER TO %I', v_admin);
    END IF;
    FOR v_each IN
        SELECT "oid"::regclass AS "name" FROM pg_class
        WHERE "relnamespace" = v_schema AND "relkind" IN ('r', 'p', 'v') AND "relowner" <> quote_ident(v_admin)::regrole
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_each."name", v_admin);
    END LOOP;
    FOR v_each IN
        SELECT "oid"::regprocedure AS "name", "proowner" <> quote_ident(v_admin)::regrole AS "foreign",
            "proname" ~ '^(append|link)_' AND NOT "prosecdef" AS "lend", "proname" ~ '^(append|link)_' AS "append",
            "proname" ~ '^(position_at|refuse_archived)_' AS "run", "prorettype" = 'trigger'::regtype AS "trigger"
        FROM pg_proc WHERE "pronamespace" = v_schema AND "prokind" = 'f'
    LOOP
        IF v_each."foreign" THEN
            EXECUTE format('ALTER FUNCTION %s OWNER TO %I', v_each."name", v_admin);
        END IF;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_each."name");
        IF v_each."lend" THEN
            -- The append role writes by these functions and in no other way. Nobody can put an object of his own in their
            -- way: the names of the schema are written out, and nothing else is looked for outside of pg_catalog.
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', v_each."name");
        END IF;
        IF v_each."append" AND NOT v_each."trigger" THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_each."name", v_append);
        END IF;
        IF v_each."run" THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_each."name", v_run);
        END IF;
    END LOOP;

    EXECUTE format('GRANT USAGE ON SCHEMA "headwater" TO %I, %I', v_append, v_run);
    -- Bulk imports stay the admin's: they copy rows into the tables, and who may do that could write any version.
    -- Appending: where the head is and where events stand, by which an append that is sent again is recognised; no payload.
    EXECUTE format('GRANT SELECT ON "headwater"."migrations", "headwater"."roles" TO %I', v_append);
    EXECUTE format('GRANT SELECT ("position") ON "headwater"."head" TO %I', v_append);
    EXECUTE format('GRANT SELECT ("event_id", "stream", "version", "position") ON "headwater"."events" TO %I', v_append);
    EXECUTE format('GRANT SELECT ON "headwater"."event_ids", "headwater"."archived_streams" TO %I', v_append);
    EXECUTE format('GRANT SELECT ON "headwater"."archived_erasures", "headwater"."ranges" TO %I', v_append);
    EXECUTE format('GRANT INSERT ON "headwater"."appends_at_commit" TO %I', v_append);
    IF to_regclass('"headwater"."subject_keys"') IS NOT NULL THEN
        -- Keys of subjects are wrapped by one that the database does not know; a new subject's first event brings one.
        EXECUTE format('GRANT SELECT, INSERT ON "headwater"."subject_keys" TO %I', v_append);
    END IF;
    -- Running: read everything, write what subscriptions keep, and snapshots, which can be made anew from events.
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA "headwater" TO %I', v_run);
    FOREACH v_table IN ARRAY ARRAY[
        'subscriptions', 'partitions', 'hosts', 'plan', 'parked_events', 'parked_edits', 'commands', 'replays', 'replacements',
        'snapshots'
    ] LOOP
        -- Some of these come with later migrations, after which this is called again.
        IF to_regclass('"headwater".' || quote_ident(v_table)) IS NOT NULL THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON "headwater".%I TO %I', v_table, v_run);
        END IF;
    END LOOP;
END $$;
