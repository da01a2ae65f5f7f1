"""``mixunlearn-cli info``: what is installed and what works here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pymixunlearn.display import printable

from . import names
from .columns import paragraph

if TYPE_CHECKING:
    from pymixunlearn.ops import LibraryStatus


@click.command()
def info() -> None:
    """Print versions, devices, and the facts of the compiled operators' build.

    Where the operators could not be loaded it says why; everything still works then, in plain PyTorch and slower.
    """
    import torch

    from pymixunlearn import data, ops
    from pymixunlearn.experiments.common.provenance import versions

    _section("Versions", versions())
    _section("Devices", dict(_devices(torch)))
    status = ops.status()
    libraries = {"CPU library": _library(status.cpu), "CUDA library": _library(status.cuda)}
    facts = {name.replace("_", " "): "none" if value is None else value for name, value in status.facts.items()}
    _section("Compiled operators", {**libraries, **facts})
    _section(
        "Names",
        {
            "methods": ", ".join(names.METHODS),
            "datasets": ", ".join(names.DATASETS),
            "models": ", ".join(names.MODELS),
            "cache": data.cache_dir(),
        },
    )


def _devices(torch: Any) -> Iterator[tuple[str, str]]:
    yield "cpu", f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield "cuda", f"not available (PyTorch is built {built})"
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        yield f"cuda:{index}", f"{properties.name}, {memory}, compute capability {properties.major}.{properties.minor}"


def _library(library: LibraryStatus) -> str:
    return "in use" if library.available else f"not in use (plain PyTorch instead): {library.reason}"


def _section(title: str, facts: Mapping[str, Any]) -> None:
    click.echo(f"{title}:")
    width = max(map(len, facts))
    for name, value in facts.items():
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        shown = "not installed" if value is None else printable(str(value))
        for line in paragraph(f"{name:<{width}}  {shown}", "  ", hanging=width + 2):
            click.echo(line)
