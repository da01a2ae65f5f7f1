"""Progress of a training: its lines fit into a terminal of 80 columns."""

from __future__ import annotations

from pymixunlearn.experiments.common.progress import Observer, PhaseCallback


class Details(Observer):
    """The details of a phase."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def phase_advanced(self, phase: str, done: int, detail: str = "") -> None:
        self.seen.append(detail)


def detail_of(record: dict[str, float]) -> str:
    details = Details()
    callback = PhaseCallback(details, "unlearn")
    callback.on_loop_start("mixunlearn", 20, 10, 0)
    callback.on_epoch_end(1, {"epoch": 2, "seconds": 0.5, **record}, dict)
    return details.seen[-1]


def test_a_short_record_is_shown_whole() -> None:
    assert detail_of({"retain": 0.125, "forget": 2.0}) == "epoch 2/20 retain 0.125 forget 2"


def test_a_long_record_is_cut_between_two_measurements() -> None:
    masks = {"generator": -120.0567, "generator_vanilla": -118.4321, "mask": 0.49, "mask_within": 0.19}
    shown = detail_of({**masks, "mix": -123.4567, "real": 98.76543})
    assert shown == "epoch 2/20 mix -123.5 real 98.77 generator -120.1 ..."
    assert len(f"second_retrain 100 %  {shown}") <= 80
