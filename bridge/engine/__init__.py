"""RQ over the ledger: hints wake lanes, workers run them, the shipper and the sweeper feed them."""
