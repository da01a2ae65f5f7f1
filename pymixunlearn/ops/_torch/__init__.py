"""What the operators have to do with PyTorch's dispatcher: the compiled libraries, derivatives and fake kernels."""
