"""Measures the fused operators beside plain PyTorch, ``torch.compile`` and PyTorch's own attention.

What is measured is in :mod:`.cases`, how in :mod:`.measure`. The suite in ``benchmarks`` has the cases from here too.
"""

from pymixunlearn.benchmarking.cases import DTYPES, OPERATORS, SIZES, Case, grid
from pymixunlearn.benchmarking.machine import Machine, describe_machine
from pymixunlearn.benchmarking.measure import PROVIDERS, QUICK_SECONDS, SECONDS, Settings, measure_case
from pymixunlearn.benchmarking.page import command_line, write_page
from pymixunlearn.benchmarking.results import Measurement, ResultFile, read_results

__all__ = [
    "DTYPES",
    "OPERATORS",
    "PROVIDERS",
    "QUICK_SECONDS",
    "SECONDS",
    "SIZES",
    "Case",
    "Machine",
    "Measurement",
    "ResultFile",
    "Settings",
    "command_line",
    "describe_machine",
    "grid",
    "measure_case",
    "read_results",
    "write_page",
]
