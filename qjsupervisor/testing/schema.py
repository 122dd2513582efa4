"""Creates the tables of an Odoo database that a job runner uses.

As Odoo 18.0 with queue_job 18.0.4 creates them; `Schema` switches off what older branches lack. Works on any
psycopg2 connection in autocommit.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import extensions

MODULE = "queue_job"
CHANGED_PAYLOAD = "reload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The features of a database; defaults are those of 18.0.4."""

    #: queue_job_lock, present from 16.0.2.11, 17.0.1.3 and 18.0.2 on.
    lock_table: bool = True
    #: The table queue_job_channel.
    channel_table: bool = True
    #: Its settings (capacity, sequential, ...); before 18.0.4 it has only names.
    channel_settings: bool = True
    #: records, args and kwargs as jsonb; text up to 17.0.
    jsonb: bool = True
    #: Columns for dependencies; missing in the oldest branches.
    dependencies: bool = True
    #: The trigger that sends notifications.
    trigger: bool = True
    #: queue_job's row in ir_module_module.
    module_state: str = "installed"


#: Idempotent: Odoo without queue_job.
_BASE = """
CREATE TABLE IF NOT EXISTS res_company (id serial PRIMARY KEY, name varchar NOT NULL);
CREATE TABLE IF NOT EXISTS res_users (
    id serial PRIMARY KEY, login varchar NOT NULL UNIQUE,
    company_id integer REFERENCES res_company ON DELETE SET NULL);
CREATE TABLE IF NOT EXISTS ir_model (id serial PRIMARY KEY, model varchar NOT NULL UNIQUE, name varchar);
CREATE TABLE IF NOT EXISTS ir_module_module (
    id serial PRIMARY KEY, name varchar NOT NULL UNIQUE, state varchar, latest_version varchar);
CREATE INDEX IF NOT EXISTS ir_module_module_state_index ON ir_module_module (state);
CREATE TABLE IF NOT EXISTS ir_config_parameter (id serial PRIMARY KEY, key varchar NOT NULL UNIQUE, value text);
INSERT INTO res_company (id, name) VALUES (1, 'Stand-in') ON CONFLICT DO NOTHING;
INSERT INTO res_users (id, login, company_id) VALUES (1, '__system__', 1) ON CONFLICT DO NOTHING;
INSERT INTO ir_module_module (name, state, latest_version)
VALUES ('base', 'installed', '18.0.1.3'), ('sale', 'installed', '18.0.1.2'), ('web', 'installed', '18.0.1.0'),
       ('queue_job', 'uninstalled', NULL)
ON CONFLICT DO NOTHING;
"""

_JOB_TABLE = """
CREATE TABLE queue_job (
    id serial PRIMARY KEY,
    user_id integer REFERENCES res_users ON DELETE SET NULL,
    company_id integer REFERENCES res_company ON DELETE SET NULL,
    priority integer, retry integer, max_retries integer,
    job_function_id integer, worker_pid integer,
    uuid varchar NOT NULL,
    name varchar, model_name varchar, method_name varchar, func_string varchar,
    state varchar NOT NULL,
    exc_name varchar, exc_message varchar,
    channel_method_name varchar, channel varchar, identity_key varchar,
    records {json}, args {json}, kwargs {json},
    exc_info text, result text,
    date_created timestamp, date_started timestamp, date_enqueued timestamp, date_done timestamp,
    eta timestamp, exec_time double precision, additional_info varchar);
CREATE INDEX queue_job__channel_index ON queue_job (channel);
CREATE INDEX queue_job__company_id_index ON queue_job (company_id);
CREATE INDEX queue_job__state_index ON queue_job (state);
CREATE INDEX queue_job__uuid_index ON queue_job (uuid);
CREATE INDEX queue_job_channel_date_done_date_created_index
    ON queue_job (channel, date_done, date_created);
CREATE INDEX queue_job_identity_key_state_partial_index ON queue_job (identity_key)
    WHERE state IN ('pending', 'enqueued', 'wait_dependencies') AND identity_key IS NOT NULL;
"""

_DEPENDENCY_COLUMNS = """
ALTER TABLE queue_job ADD COLUMN graph_uuid varchar, ADD COLUMN dependencies text,
    ADD COLUMN date_cancelled timestamp;
CREATE INDEX queue_job__graph_uuid_index ON queue_job (graph_uuid);
"""

_LOCK_TABLE = """
CREATE TABLE queue_job_lock (
    id serial PRIMARY KEY,
    queue_job_id integer NOT NULL REFERENCES queue_job ON DELETE CASCADE,
    create_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_uid integer REFERENCES res_users ON DELETE SET NULL,
    create_date timestamp, write_date timestamp);
CREATE INDEX queue_job_lock__queue_job_id_index ON queue_job_lock (queue_job_id);
"""

_CHANNEL_TABLE = """
CREATE TABLE queue_job_channel (
    id serial PRIMARY KEY,
    parent_id integer REFERENCES queue_job_channel ON DELETE RESTRICT,
    removal_interval integer NOT NULL DEFAULT 30,
    create_uid integer REFERENCES res_users ON DELETE SET NULL,
    write_uid integer REFERENCES res_users ON DELETE SET NULL,
    name varchar, complete_name varchar,
    create_date timestamp, write_date timestamp,
    CONSTRAINT queue_job_channel_name_uniq UNIQUE (complete_name));
INSERT INTO queue_job_channel (name, complete_name) VALUES ('root', 'root');
CREATE TABLE queue_job_function (
    id serial PRIMARY KEY,
    model_id integer REFERENCES ir_model ON DELETE CASCADE,
    channel_id integer NOT NULL REFERENCES queue_job_channel ON DELETE RESTRICT,
    name varchar, method varchar, on_fail_method varchar, channel varchar,
    retry_pattern jsonb, related_action jsonb, allow_commit boolean);
CREATE INDEX queue_job_function__name_index ON queue_job_function (name);
ALTER TABLE queue_job ADD FOREIGN KEY (job_function_id) REFERENCES queue_job_function ON DELETE SET NULL;
"""

_CHANNEL_SETTINGS = """
ALTER TABLE queue_job_channel
    ADD COLUMN capacity integer, ADD COLUMN throttle integer, ADD COLUMN capacity_default integer,
    ADD COLUMN sequential boolean, ADD COLUMN paused boolean, ADD COLUMN sequential_default boolean;
"""

#: Every change notifies, even one that changes nothing, except the deletion of a done row.
_TRIGGER = """
CREATE OR REPLACE FUNCTION queue_job_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('queue_job', NEW.uuid);
    ELSIF OLD.state <> 'done' THEN
        PERFORM pg_notify('queue_job', OLD.uuid);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER queue_job_notify AFTER INSERT OR UPDATE OR DELETE ON queue_job
    FOR EACH ROW EXECUTE PROCEDURE queue_job_notify();
"""

_UNINSTALL = """
DROP TABLE IF EXISTS queue_job_lock, queue_job, queue_job_function, queue_job_channel;
DROP FUNCTION IF EXISTS queue_job_notify();
"""

_MODULE_STATE = "UPDATE ir_module_module SET state = %s, latest_version = %s WHERE name = 'queue_job'"

_SET_CHANNEL = """
INSERT INTO queue_job_channel AS channel
       (name, complete_name, parent_id, capacity, sequential, throttle, paused,
        capacity_default, sequential_default)
SELECT %(name)s, %(complete_name)s,
       (SELECT id FROM queue_job_channel WHERE complete_name = %(parent)s),
       %(capacity)s, %(sequential)s, %(throttle)s, %(paused)s, %(capacity_default)s, %(sequential_default)s
ON CONFLICT (complete_name) DO UPDATE
   SET capacity = excluded.capacity, sequential = excluded.sequential, throttle = excluded.throttle,
       paused = excluded.paused, capacity_default = excluded.capacity_default,
       sequential_default = excluded.sequential_default
"""


def statements(schema: Schema) -> str:
    """The SQL that creates queue_job's tables in a database with Odoo's base."""
    parts = [_JOB_TABLE.format(json="jsonb" if schema.jsonb else "text")]
    parts += [_DEPENDENCY_COLUMNS] if schema.dependencies else []
    parts += [_LOCK_TABLE] if schema.lock_table else []
    parts += [_CHANNEL_TABLE] if schema.channel_table else []
    parts += [_CHANNEL_SETTINGS] if schema.channel_table and schema.channel_settings else []
    parts += [_TRIGGER] if schema.trigger else []
    return "".join(parts)


def install_base(connection: extensions.connection) -> None:
    """Make it an Odoo database without queue_job. Idempotent."""
    with connection.cursor() as cursor:
        cursor.execute(_BASE)


def install(connection: extensions.connection, schema: Schema | None = None) -> None:
    """Install queue_job in one transaction, as a module installation does."""
    schema = schema or Schema()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(_BASE + statements(schema))
        cursor.execute(_MODULE_STATE, (schema.module_state, "18.0.4.1.2"))
        cursor.execute("COMMIT")


def uninstall(connection: extensions.connection) -> None:
    """Remove queue_job and its tables."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(_UNINSTALL)
        cursor.execute(_MODULE_STATE, ("uninstalled", None))
        cursor.execute("COMMIT")


def set_module_state(connection: extensions.connection, state: str, module: str = "queue_job") -> None:
    """Set a module's state: 'installed', 'to upgrade', 'to remove', ..."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE ir_module_module SET state = %s WHERE name = %s", (state, module))


def neutralize(connection: extensions.connection, neutralized: bool) -> None:
    """Write what Odoo's `neutralize` writes, or remove it."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM ir_config_parameter WHERE key = 'database.is_neutralized'")
        if neutralized:
            cursor.execute("INSERT INTO ir_config_parameter (key, value) VALUES ('database.is_neutralized', 'true')")


def set_channel(
    connection: extensions.connection,
    complete_name: str,
    *,
    capacity: int = 0,
    sequential: bool = False,
    throttle: int = 0,
    paused: bool = False,
    capacity_default: int = 0,
    sequential_default: bool = False,
    notify: bool = True,
) -> None:
    """Create or change a channel as 18.0.4's form does, notifying the runner unless `notify` is off."""
    parent, _, name = complete_name.rpartition(".")
    settings = {
        "name": name,
        "complete_name": complete_name,
        "parent": parent,
        "capacity": capacity,
        "sequential": sequential,
        "throttle": throttle,
        "paused": paused,
        "capacity_default": capacity_default,
        "sequential_default": sequential_default,
    }
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(_SET_CHANNEL, settings)
        if notify:
            cursor.execute("SELECT pg_notify('queue_job', %s)", (CHANGED_PAYLOAD,))
        cursor.execute("COMMIT")
