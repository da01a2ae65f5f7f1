"""Ensembles on shards of the data: SISA, and DSMixup, which merges shards."""

from __future__ import annotations

from pymixunlearn.methods.sisa.dsmixup import DsMixup, DsMixupConfig
from pymixunlearn.methods.sisa.sisa import Sisa, SisaConfig

__all__ = ["DsMixup", "DsMixupConfig", "Sisa", "SisaConfig"]
