"""`tune`: search of a method's settings, judged on a part of the training data."""
