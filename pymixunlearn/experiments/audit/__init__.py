"""`audit`: attacks by shadow models."""
