"""Every fused operator beside plain PyTorch, ``torch.compile`` and PyTorch's own attention.

:mod:`.cases` says what is measured, :mod:`.measure` how.
"""

from pymixunlearn.benchmarking.ops.cases import DTYPES, OPERATORS, SIZES, Case, grid
from pymixunlearn.benchmarking.ops.measure import PROVIDERS, QUICK_SECONDS, SECONDS, Settings, measure_case
from pymixunlearn.benchmarking.ops.results import Measurement, ResultFile, read_results

__all__ = [
    "DTYPES",
    "OPERATORS",
    "PROVIDERS",
    "QUICK_SECONDS",
    "SECONDS",
    "SIZES",
    "Case",
    "Measurement",
    "ResultFile",
    "Settings",
    "grid",
    "measure_case",
    "read_results",
]
