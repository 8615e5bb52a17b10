-- The group roles of a store.

-- name: list_roles
-- A role without a row in the server's list was left behind, where the database came from.
SELECT "mine"."kind", "mine"."name", coalesce(array_agg("login"."rolname" ORDER BY "login"."rolname")
    FILTER (WHERE "login"."rolname" IS NOT NULL), '{}')::text[]
FROM "headwater"."roles" AS "mine"
JOIN pg_roles AS "there" ON "there"."rolname" = "mine"."name"
LEFT JOIN pg_auth_members AS "member" ON "member"."roleid" = "there"."oid"
LEFT JOIN pg_roles AS "login" ON "login"."oid" = "member"."member"
GROUP BY "mine"."kind", "mine"."name" ORDER BY "mine"."kind";

-- name: roles_table_exists
SELECT to_regclass('"headwater"."roles"') IS NOT NULL;

-- name: make_roles
SELECT "headwater"."make_roles_v1"();

-- name: grant_roles
SELECT "headwater"."grant_roles_v1"();

-- name: become_admin
-- For the session, so that what it makes belongs to the admin role, whoever runs it.
SELECT set_config('role', "mine"."name", false)
FROM "headwater"."roles" AS "mine" JOIN pg_roles AS "there" ON "there"."rolname" = "mine"."name"
WHERE "kind" = 'admin' AND pg_has_role(session_user, "there"."oid", 'MEMBER');
