"""The only truth about what happened: deliveries, events, messages, attempts. SQLAlchemy Core, no ORM."""
