"""Operators in PyTorch's dispatcher: the compiled libraries, derivatives and fake kernels."""
