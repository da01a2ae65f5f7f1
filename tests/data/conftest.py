"""Every test has a cache folder of its own, and MNIST in small where it asks for it."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PYMIXUNLEARN_CACHE", str(folder))
    return folder


@pytest.fixture
def write_mnist() -> Callable[..., dict[str, np.ndarray]]:
    """``write_mnist(folder, gz=...)`` writes a small data set in MNIST's own files and returns their arrays."""
    return _write_mnist


def _idx_bytes(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def _write_mnist(folder: Path, *, gz: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    arrays = {}
    for prefix, count in (("train", 20), ("t10k", 10)):
        arrays[f"{prefix}-images-idx3"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{prefix}-labels-idx1"] = np.arange(count, dtype=np.uint8) % 10
    for name, values in arrays.items():
        if gz:
            (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(_idx_bytes(values)))
        else:
            (folder / f"{name}-ubyte").write_bytes(_idx_bytes(values))
    return arrays
