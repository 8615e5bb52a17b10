-- Which shape of its type a snapshot has, so that upcasters can lift an old one. What an older program saves has the first.
ALTER TABLE "headwater"."snapshots" ADD COLUMN "schema_version" smallint NOT NULL DEFAULT 1;
