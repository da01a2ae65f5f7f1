"""Measures the fused operators beside plain PyTorch, ``torch.compile`` and PyTorch's own attention.

What is measured is in :mod:`.cases`, how in :mod:`.measure`. The suite in ``benchmarks`` has the cases from here too.
"""

from pymixunlearn.benchmarking.cases import DTYPES, OPERATORS, SIZES, Case, grid
from pymixunlearn.benchmarking.machine import Machine, describe_machine
from pymixunlearn.benchmarking.measure import PROVIDERS, Settings, measure_case
from pymixunlearn.benchmarking.page import write_page
from pymixunlearn.benchmarking.results import Measurement, ResultFile, read_results

__all__ = [
    "DTYPES",
    "OPERATORS",
    "PROVIDERS",
    "SIZES",
    "Case",
    "Machine",
    "Measurement",
    "ResultFile",
    "Settings",
    "describe_machine",
    "grid",
    "measure_case",
    "read_results",
    "write_page",
]
