"""EU-k: where a network can be cut, and the method."""

from __future__ import annotations

from pymixunlearn.methods.eu_k.eu_k import EuK, EuKConfig

__all__ = ["EuK", "EuKConfig"]
