"""Measurements beside plain PyTorch: single operators, training steps, whole deletion requests.

:mod:`.ops`, :mod:`.step` and :mod:`.end_to_end` are what ``mixunlearn-cli bench`` runs; :mod:`.timing`, :mod:`.memory`
and :mod:`.machine` serve all three. The pages and plots of this repository are made by ``benchmarks/report``.
"""

from pymixunlearn.benchmarking.machine import Machine, describe_machine

__all__ = ["Machine", "describe_machine"]
