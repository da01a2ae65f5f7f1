"""Benchmarks and the tools that write their results into the docs. Not part of the installed package."""
