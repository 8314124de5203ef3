"""The events and the envelopes, and the triggers that keep both append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TABLES = ("events", "envelopes")
REFUSE = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
FUNCTION = (
    "CREATE OR REPLACE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
)
# On SQLite, INSERT OR REPLACE would delete a row without the trigger for DELETE.
EVENTS_IN_ORDER = (
    "CREATE TRIGGER events_in_order BEFORE INSERT ON events WHEN NEW.sequence <> 1 + "
    "(SELECT coalesce(max(sequence), 0) FROM events WHERE product = NEW.product)"
)
ENVELOPES_NO_REPLACE = (
    "CREATE TRIGGER envelopes_no_replace BEFORE INSERT ON envelopes WHEN EXISTS (SELECT 1 FROM envelopes "
    "WHERE envelope_sha256 = NEW.envelope_sha256)"
)


def upgrade() -> None:
    """Creates both tables and their triggers."""
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("product", sa.String(63), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("previous_sha256", sa.String(64), nullable=False),
        sa.Column("event_sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("recorded_at", sa.String(40), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.UniqueConstraint("product", "sequence"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "envelopes",
        sa.Column("envelope_sha256", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        _refuse_on_postgresql()
    else:
        _refuse_on_sqlite()


def _refuse_on_postgresql() -> None:
    op.execute(FUNCTION)
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"
        )


def _refuse_on_sqlite() -> None:
    for table in TABLES:
        for action in ("UPDATE", "DELETE"):
            op.execute(f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} {REFUSE}")
    for trigger in (EVENTS_IN_ORDER, ENVELOPES_NO_REPLACE):
        op.execute(f"{trigger} {REFUSE}")
