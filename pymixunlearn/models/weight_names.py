"""Names of tensors in a file, brought to those of the network that they go into.

Wrappers leave prefixes in a state dict: DataParallel ``module.``, torch.compile ``_orig_mod.``, Lightning the name of
an attribute. They are taken off as often as all names share one, and only where the names then fit better.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

_ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Components of a name that only wrappers leave, also around an inner layer."""
_COUNTERS = frozenset({"n_averaged"})
"""Tensors of wrappers that are no weights: how many models an average (SWA) is of."""

T = TypeVar("T")


def aligned(found: Mapping[str, T], expected: Collection[str]) -> dict[str, T]:
    """Return ``found`` under the names of ``expected``, as far as prefixes are all that tells them apart.

    Args:
        found: Values by name, of a file.
        expected: The network's own names, which may have prefixes of their own.

    Returns:
        The values; counters that a wrapper adds are left out.

    Example:
        >>> aligned({"module.a.weight": 1, "module.a.bias": 2}, ["a.weight", "a.bias"])
        {'a.weight': 1, 'a.bias': 2}
        >>> aligned({"weight": 1}, ["module.weight"])
        {'module.weight': 1}
    """
    found = {name: value for name, value in found.items() if name not in _COUNTERS or name in expected}
    pairs = [(mine, theirs) for mine in _shortened(found) for theirs in _shortened(expected)]
    # Of equally good ones the first: it takes off least.
    mine, theirs = max(pairs, key=lambda pair: len(pair[0].keys() & pair[1].keys()))
    if not mine.keys() & theirs.keys():
        return dict(found)
    return {theirs.get(core, core): found[name] for core, name in mine.items()}


def fitting_prefixes(found: Collection[str], missing: Collection[str]) -> list[str]:
    """Return the prefixes below which all missing names are found, where these lie beside others.

    Example:
        >>> fitting_prefixes(["net.a", "net.b", "loss.weight"], ["a", "b"])
        ['net.']
    """
    first, names = next(iter(missing)), set(found)
    prefixes = [name[: -len(first)] for name in found if name.endswith(f".{first}")]
    return [prefix for prefix in prefixes if all(prefix + name in names for name in missing)]


def _shortened(names: Collection[str]) -> list[dict[str, str]]:
    """Return the full names by what is left of them, for every number of prefixes that can be taken off."""
    steps = [{name: name for name in names}]
    current = {".".join(part for part in name.split(".") if part not in _ANYWHERE): name for name in names}
    while len(current) == len(names):  # otherwise two names have become one
        steps.append(current)
        if len({core.partition(".")[0] for core in current}) != 1 or not all("." in core for core in current):
            break
        current = {core.partition(".")[2]: name for core, name in current.items()}
    return steps
