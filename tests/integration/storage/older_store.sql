-- What a program wrote that knew the first four migrations: ten events, links to them, snapshots, and four subscriptions
-- that have settled all of it. By the functions and tables of that time, which later migrations must leave working.
SELECT FROM "headwater"."append_v1"(
    ARRAY['s'], ARRAY[1], ARRAY[-1::bigint], ARRAY[10], ARRAY[1], array_fill(1, ARRAY[10]),
    ARRAY(SELECT md5(n::text)::uuid FROM generate_series(1, 10) AS n), array_fill('OrderPlaced'::text, ARRAY[10]),
    ARRAY(SELECT json_build_object('n', n) FROM generate_series(1, 10) AS n),
    NULL, NULL, NULL, NULL, NULL, NULL
);
SELECT FROM "headwater"."link_v1"(
    'links', -1, ARRAY(SELECT "event_id" FROM "headwater"."events" ORDER BY "position")
);
INSERT INTO "headwater"."snapshots" ("source", "version", "type", "data")
SELECT 'source-' || n, n, 'State', json_build_object('n', n) FROM generate_series(1, 10) AS n;
INSERT INTO "headwater"."subscriptions" ("name", "handler", "source", "options") VALUES
    ('all', 'tests:handler', '$all', '{}'), ('all-new', 'tests:handler', '$all', '{}'),
    ('stream', 'tests:handler', 's', '{}'), ('stream-new', 'tests:handler', 's', '{}');
INSERT INTO "headwater"."partitions" ("subscription_id", "checkpoint", "stream_id", "epoch", "in_flight_to", "delivered")
SELECT "subscription_id", 10, (SELECT "stream_id" FROM "headwater"."streams" WHERE "name" = "source"), 1, 10, 10
FROM "headwater"."subscriptions";
