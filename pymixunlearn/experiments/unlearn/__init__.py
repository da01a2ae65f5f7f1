"""`unlearn`: plan, run, figures and report of one run."""
