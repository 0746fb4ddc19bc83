"""The accept journal: bytes are safe here before anybody answers 200, and leave only for the ledger."""
