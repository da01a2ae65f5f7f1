"""EU-k: where a network can be cut, the outputs of its frozen part, and the method."""

from __future__ import annotations

from pymixunlearn.methods.eu_k.method import EuK, EuKConfig

__all__ = ["EuK", "EuKConfig"]
