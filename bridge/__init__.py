"""Campus Bridge: signed webhooks of education platforms in, canonical events out, nothing lost."""

__version__ = "0.1.0"
