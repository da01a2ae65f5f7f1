"""Expected times on a GPU that is not at hand: traffic at its memory's rate, operations at its arithmetic's."""

from __future__ import annotations

from typing import NamedTuple

from pymixunlearn.benchmarking.ops.cases import Case

#: The share of the data sheet's bandwidth that a large copy is assumed to reach.
COPY_SHARE = 0.9


class Gpu(NamedTuple):
    """A data sheet: bytes per second, and operations per second without and with tensor cores."""

    bandwidth: float
    plain_operations: float
    tensor_operations: float


#: By what the device's name contains.
GPUS = {
    "H100": Gpu(bandwidth=3.35e12, plain_operations=67e12, tensor_operations=989e12),
    "H200": Gpu(bandwidth=4.8e12, plain_operations=67e12, tensor_operations=989e12),
}


def expected_ms(case: Case, mode: str, gpu: Gpu) -> float:
    """Return the milliseconds of a kernel that is held up by nothing but memory or arithmetic, launches not counted.

    Half precision is assumed to use the tensor cores, single precision not to.
    """
    traffic = case.traffic(mode)
    half = case.dtype in ("bfloat16", "float16")
    rate = gpu.tensor_operations if half else gpu.plain_operations
    return 1e3 * max(traffic.bytes / (COPY_SHARE * gpu.bandwidth), traffic.operations / rate)
