"""Whole training steps beside a loop in plain PyTorch, and where the time of a step goes."""
