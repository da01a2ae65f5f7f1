"""A deletion request from end to end, and how its time and memory grow."""
