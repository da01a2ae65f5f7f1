"""Which operators serve which tensors, and what is said where that is the reference."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pymixunlearn import ops
from pymixunlearn.ops import _OPERATORS, reference
from pymixunlearn.ops._torch import call, library

FAKES = [fake for operator in _OPERATORS for fake in operator.FAKES]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What a test does to the state of the libraries ends with it."""
    names = ("STATUS", "CPU", "CUDA")
    before = {name: getattr(library, name) for name in names} | {"_warned": set(library._warned)}
    yield
    for name, value in before.items():
        setattr(library, name, value)


class Elsewhere(Tensor):
    """Stands for a tensor on a device that this machine does not have; its numbers lie on the CPU."""

    where = "mps"

    @property
    def device(self) -> Any:
        return type("Device", (), {"type": self.where})()

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.where == "cuda"


@pytest.mark.parametrize("where", ["mps", "xpu", "privateuseone"])
def test_a_device_without_kernels_is_served_by_the_reference_which_says_so_once(where: str) -> None:
    tensor = torch.zeros(2).as_subclass(type("There", (Elsewhere,), {"where": where}))
    with pytest.warns(RuntimeWarning, match=f"tensors on {where} are served by .* no compiled operators for {where}"):
        assert not call.compiled(tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not call.compiled(tensor, tensor)


def test_rocm_is_served_by_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors call themselves CUDA tensors."""
    monkeypatch.setattr(torch.version, "hip", "6.4", raising=False)
    cuda = library._load_cuda(library.LibraryStatus(True))
    assert not cuda.available and cuda.reason is not None and "is built for ROCm" in cuda.reason
    library.STATUS, library.CPU, library.CUDA = replace(library.STATUS, cuda=cuda), True, False
    library._warned.discard("cuda")
    tensor = torch.zeros(2).as_subclass(type("There", (Elsewhere,), {"where": "cuda"}))
    with pytest.warns(RuntimeWarning, match="tensors on cuda are served by .* is built for ROCm"):
        assert not call.compiled(tensor)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF\0libc10.so\0libcudart.so.13\0libtorch.so\0", 13),
        (b"\x7fELF\0mylibcudart.so.11\0libcudart.so.12\0", 12),
        (b"\x7fELF\0libc10.so\0", None),  # a runtime of its own
        (b"", None),
        (None, None),
    ],
)
def test_the_cuda_version_of_a_library_is_read_from_its_file(
    tmp_path: Path, content: bytes | None, expected: int | None
) -> None:
    path = tmp_path / "_ops_cuda.so"
    if content is not None:
        path.write_bytes(content)
    assert library._cuda_major(path) == expected


def test_a_library_for_another_cuda_is_not_loaded_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "_ops_cuda.so").write_bytes(b"\0libcudart.so.13\0")
    monkeypatch.setattr(library, "_PACKAGE", tmp_path)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch, "__version__", "2.10.0+cu128")
    expected = "_ops_cuda.so is for CUDA 13, and torch 2.10.0+cu128 is built with CUDA 12"
    assert library._load_cuda(library.LibraryStatus(True)) == library.LibraryStatus(False, expected)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert str(library._load_cuda(library.LibraryStatus(True)).reason).startswith("_ops_cuda.so does not load under")


def test_facts_of_the_build_are_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The module that knows them is for one version of Python, and a wheel serves all."""
    monkeypatch.setitem(sys.modules, "pymixunlearn._introspection", None)
    monkeypatch.setattr(library, "_PACKAGE", tmp_path)
    assert library._facts() == {"introspection": "was not built"}
    (tmp_path / "_introspection.cpython-39-x86_64-linux-gnu.so").touch()
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    told = f"not for {here}; there is _introspection.cpython-39-x86_64-linux-gnu.so"
    assert library._facts() == {"introspection": told}


@pytest.mark.parametrize(("capability", "served"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_a_gpu_that_the_kernels_are_not_built_for_is_served_by_the_reference(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], served: bool
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: asked.append(index) or capability)
    monkeypatch.setattr(library, "_capable", {})
    library.STATUS = replace(library.STATUS, cuda=library.LibraryStatus(True))
    library.CPU, library.CUDA = True, True
    library._warned.discard("cuda")
    tensor = torch.zeros(2).as_subclass(type("There", (Elsewhere,), {"where": "cuda", "get_device": lambda self: 3}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert call.compiled(tensor) is call.compiled(tensor) is served
    assert asked == [3]
    expected = (
        [] if served else ["tensors on cuda are served by the plain-PyTorch reference operators, which are slower: "]
    )
    assert [str(one.message).partition("the compiled operators need")[0] for one in told] == expected
    assert served or "compute capability 8.0 or newer" in str(told[0].message)


def test_on_meta_nothing_is_said_and_nothing_is_read() -> None:
    z = torch.zeros(4, 5, device="meta")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = ops.sim_loss(z, z)
    assert loss.shape == (4,) and loss.is_meta


def test_the_operators_that_are_loaded_fit() -> None:
    library.check_fit(FAKES)
    assert library.STATUS.cpu.available


def _of_the_next_version(logits: Tensor) -> Tensor:
    return logits


def _sharpen(logits: Tensor, T: float, base: float) -> Tensor:
    return logits


@pytest.mark.parametrize(
    ("fake", "says"),
    [
        (_of_the_next_version, "it lacks the operator of_the_next_version"),
        (_sharpen, "its operator sharpen takes logits, T"),
    ],
)
def test_a_library_of_another_version_is_given_up_with_its_reason(fake: Any, says: str) -> None:
    with pytest.warns(RuntimeWarning, match=f"reference operators.*of another version of this package.*{says}"):
        library.check_fit([*FAKES, fake])
    assert not library.STATUS.available and not library.STATUS.cuda.available
    z, y = torch.randn(4, 5), torch.arange(4)
    assert not call.compiled(z)
    assert torch.equal(ops.sim_loss(z, y), reference.sim_loss(z, y))


def test_the_reference_by_wish_is_silent() -> None:
    code = (
        "import torch; from pymixunlearn import ops\n"
        "ops.sim_loss(torch.eye(3), torch.arange(3)); print(ops.status().reason)"
    )
    environment = {**os.environ, "PYMIXUNLEARN_REFERENCE": "1"}
    command = [sys.executable, "-W", "error", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "switched off by PYMIXUNLEARN_REFERENCE=1"
