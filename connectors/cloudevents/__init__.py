"""A receiver of CloudEvents 1.0 over HTTP."""
