"""What an epoch is: through which set, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pymixunlearn import methods
from pymixunlearn.methods.loop import EpochOf


@dataclass(frozen=True)
class _ProbeConfig(methods.LoopConfig):
    epochs: int = methods.setting(2, "passes", low=1)


class _Probe(methods.Loop[_ProbeConfig]):
    """Notes the samples of every step."""

    name = "probe"
    config_class = _ProbeConfig

    def step(self, *batches: Any) -> dict[str, torch.Tensor]:
        return {str(side): batch.indices for side, batch in enumerate(batches)}


def _epochs(epoch_of: EpochOf, tiny: Any, forget: int, retain: int) -> list[list[list[torch.Tensor]]]:
    probe = _Probe(batch_size=4)
    probe.epoch_of = epoch_of  # type: ignore[misc]
    run = probe.begin(tiny.job(tiny.split(forget, retain)))
    (stage,) = run.stages()
    epochs = [[list(measured.values()) for measured in run.epoch(epoch)] for epoch in range(stage.epochs)]
    assert [len(steps) for steps in epochs] == [stage.steps] * 2
    return epochs


@pytest.mark.parametrize(("epoch_of", "count"), [("forget", 6), ("retain", 14)])
def test_once_through_one_set(epoch_of: EpochOf, count: int, tiny: Any) -> None:
    first, second = _epochs(epoch_of, tiny, 6, 14)
    for steps in (first, second):
        assert sorted(torch.cat([indices for (indices,) in steps]).tolist()) == list(range(count))
    assert not torch.equal(first[0][0], second[0][0])  # shuffled anew


def test_pairs_end_with_the_smaller_set(tiny: Any) -> None:
    for forget, retain in ((6, 14), (14, 6)):
        for steps in _epochs("pairs", tiny, forget, retain):
            assert len(steps) == 2 and [len(batch) for batch in steps[1]] == ([2, 4] if forget == 6 else [4, 2])


def test_the_forget_set_starts_again_beside_the_retain_set(tiny: Any) -> None:
    steps, _ = _epochs("cycled", tiny, 6, 14)
    assert sorted(torch.cat([retain for _, retain in steps]).tolist()) == list(range(14))
    turns = [torch.cat([forget for forget, _ in steps[start : start + 2]]) for start in (0, 2)]
    assert all(sorted(turn.tolist()) == list(range(6)) for turn in turns)
    assert not torch.equal(*turns)
    shorter, _ = _epochs("cycled", tiny, 14, 6)
    assert len(shorter) == 2


def test_the_epochs_of_the_methods() -> None:
    """Of those whose steps are all of one kind."""
    words = {name: getattr(methods.get(name), "epoch_of", None) for name in methods.available()}
    expected = {"boundary-expand": "forget", "boundary-shrink": "forget", "gradient-ascent": "forget"}
    expected |= {"fine-tune": "retain", "prune-reset": "retain", "neggrad": "cycled", "gli": "cycled"}
    expected |= {"randlabel": "pairs", "eu-k": "retain", "mixunlearn-reset": "retain"}
    assert {name: words[name] for name in expected} == expected
