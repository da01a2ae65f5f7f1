"""`compare`: methods and seeds on one split, a run folder each, and their tables."""
