"""What was made from what: content-addressed artifacts, signed statements and the ledger."""
