"""MLflow: runs, model versions and aliases that mirror the ledger."""
