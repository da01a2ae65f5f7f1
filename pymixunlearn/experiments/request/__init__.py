"""`request`: deletion requests over time, in a ledger for one line of models."""
