"""Alembic runs the migrations on the connection that the ledger hands it, or on the URL of its configuration."""

from alembic import context
from sqlalchemy import create_engine

from bridge.ledger.tables import metadata

config = context.config


def run() -> None:
    connection = config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, target_metadata=metadata)
        context.run_migrations()
        return
    with create_engine(config.get_main_option("sqlalchemy.url") or "").connect() as own, own.begin():
        context.configure(connection=own, target_metadata=metadata)
        context.run_migrations()


run()
