from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import pytest
import torch

from pymixunlearn.errors import UserError
from pymixunlearn.training import Callback, EndLoop, StateDict, StepDone, Stop, run_epochs


class Recorder(Callback):
    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.states: list[StateDict] = []
        self.stop_after = stop_after

    def on_loop_start(self, name: str, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        self.calls.append(("start", name, epochs, steps_per_epoch, first_epoch))

    def on_step_end(self, step: int) -> None:
        if step == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(("step", step))

    def on_epoch_end(self, epoch: int, record: Mapping[str, float], state: Callable[[], StateDict]) -> None:
        self.calls.append(("epoch", epoch, record["total"]))
        self.states.append(state())

    def on_loop_end(self) -> None:
        self.calls.append(("end",))


class Sum:
    """A loop whose state is one tensor."""

    def __init__(self) -> None:
        self.total = torch.zeros(1)

    def epoch(self, epoch: int, step_done: StepDone) -> Mapping[str, float]:
        for _ in range(2):
            self.total += epoch + 1
            if step_done():
                break
        return {"total": self.total.item()}

    def load(self, state: StateDict) -> None:
        self.total = state["total"].clone()

    def run(
        self,
        *,
        callback: Callback,
        resume: StateDict | None = None,
        name: str = "sum",
        epochs: int = 3,
        stop: Stop | None = None,
    ) -> list[dict[str, float]]:
        return run_epochs(
            name,
            epochs,
            2,
            self.epoch,
            state=lambda: {"total": self.total},
            load_state=self.load,
            callbacks=[callback],
            resume=resume,
            stop=stop,
        )


class StopAt:
    """Ends a loop after so many steps, and counts how often it was asked."""

    def __init__(self, last: int) -> None:
        self.last, self.asked, self.begun = last, 0, (0,)

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        self.begun = tuple(lengths)
        self.asked = 0 if saved is None else saved["asked"]
        return self.asked >= self.last

    def after_step(self, step: int) -> bool:
        self.asked += 1
        assert step == self.asked
        return step == self.last

    def state(self) -> StateDict:
        return {"asked": self.asked}


def test_callbacks_and_history() -> None:
    recorder = Recorder()
    history = Sum().run(callback=recorder)
    assert [(record["epoch"], record["total"]) for record in history] == [(1, 2), (2, 6), (3, 12)]
    assert all(record["seconds"] >= 0 for record in history)
    assert recorder.calls == [
        ("start", "sum", 3, 2, 0),
        *[("step", 1), ("step", 2), ("epoch", 0, 2.0)],
        *[("step", 3), ("step", 4), ("epoch", 1, 6.0)],
        *[("step", 5), ("step", 6), ("epoch", 2, 12.0)],
        ("end",),
    ]


def test_snapshots_are_independent_and_readable_without_unpickling_code() -> None:
    recorder = Recorder()
    Sum().run(callback=recorder)
    assert [state["state"]["total"].item() for state in recorder.states] == [2, 6, 12]
    buffer = io.BytesIO()
    torch.save(recorder.states[1], buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True)["state"]["total"].item() == 6


def test_an_interrupted_loop_goes_on_from_its_last_epoch() -> None:
    first = Recorder(stop_after=6)
    with pytest.raises(KeyboardInterrupt):
        Sum().run(callback=first)
    assert ("end",) not in first.calls
    second = Recorder()
    history = Sum().run(callback=second, resume=first.states[-1])
    assert [record["total"] for record in history] == [2, 6, 12]
    assert second.calls == [("start", "sum", 3, 2, 2), ("step", 5), ("step", 6), ("epoch", 2, 12.0), ("end",)]


def test_a_snapshot_serves_more_than_once() -> None:
    """A part may work on the very tensors that it is given."""
    recorder = Recorder()
    Sum().run(callback=recorder)
    for _ in range(2):
        loop = Sum()
        loop.load = lambda state, loop=loop: setattr(loop, "total", state["total"])  # type: ignore[method-assign]
        assert [record["total"] for record in loop.run(callback=Recorder(), resume=recorder.states[0])] == [2, 6, 12]


def test_a_finished_snapshot_runs_nothing_more() -> None:
    recorder = Recorder()
    Sum().run(callback=recorder)
    again = Recorder()
    loop = Sum()
    assert [record["total"] for record in loop.run(callback=again, resume=recorder.states[-1])] == [2, 6, 12]
    assert loop.total.item() == 12
    assert again.calls == [("start", "sum", 3, 2, 3), ("end",)]


def test_snapshots_of_other_loops_are_refused() -> None:
    recorder = Recorder()
    Sum().run(callback=recorder)
    with pytest.raises(UserError, match="its name is 'sum', expected 'other'"):
        Sum().run(callback=Recorder(), resume=recorder.states[0], name="other")
    with pytest.raises(UserError, match="its epochs is 3, expected 4"):
        Sum().run(callback=Recorder(), resume=recorder.states[0], epochs=4)
    with pytest.raises(UserError, match="not a snapshot"):
        Sum().run(callback=Recorder(), resume={"total": torch.zeros(1)})


def test_epochs_of_different_lengths() -> None:
    def run(recorder: Recorder, resume: StateDict | None = None, lengths: tuple[int, ...] = (3, 1, 1)) -> None:
        def epoch(index: int, step_done: Callable[[], None]) -> Mapping[str, float]:
            for _ in range(lengths[index]):
                step_done()
            return {"total": float(lengths[index])}

        run_epochs("uneven", 3, lengths, epoch, state=dict, load_state=len, callbacks=[recorder], resume=resume)

    whole = Recorder()
    run(whole)
    assert whole.calls[0] == ("start", "uneven", 3, 2, 0)  # five steps in three epochs
    assert [call[1] for call in whole.calls if call[0] == "step"] == [1, 2, 3, 4, 5]
    rest = Recorder()
    run(rest, resume=whole.states[0])
    assert [call[1] for call in rest.calls if call[0] == "step"] == [4, 5]
    with pytest.raises(UserError, match=r"its steps_per_epoch is \[3, 1, 1\], expected \[3, 1, 2\]"):
        run(Recorder(), resume=whole.states[0], lengths=(3, 1, 2))


@pytest.mark.parametrize(("last", "totals"), [(1, [1]), (2, [2]), (3, [2, 4]), (6, [2, 6, 12]), (9, [2, 6, 12])])
def test_a_loop_can_be_ended_after_any_step(last: int, totals: list[float]) -> None:
    recorder = Recorder()
    stop = StopAt(last)
    history = Sum().run(callback=recorder, stop=stop)
    assert [record["total"] for record in history] == totals
    assert [call for call in recorder.calls if call[0] == "step"] == [("step", n + 1) for n in range(min(last, 6))]
    assert recorder.calls[-2:] == [("epoch", len(totals) - 1, totals[-1]), ("end",)]
    assert stop.begun == (2, 2, 2)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_loop_that_was_ended_resumes_as_it_was(kept: int) -> None:
    recorder = Recorder()
    Sum().run(callback=recorder, stop=StopAt(3))
    again = Recorder()
    history = Sum().run(callback=again, stop=StopAt(3), resume=recorder.states[kept])
    assert [record["total"] for record in history] == [2, 4]
    assert [call for call in again.calls if call[0] == "step"] == [("step", 3)][kept:]
    assert again.calls[-1] == ("end",)


def test_only_a_loop_that_can_be_ended_goes_on_from_one() -> None:
    recorder = Recorder()
    Sum().run(callback=recorder, stop=StopAt(5))
    with pytest.raises(UserError, match="only one of the two can end"):
        Sum().run(callback=Recorder(), resume=recorder.states[0])


def test_a_callback_can_end_a_loop_without_an_error() -> None:
    class After(Callback):
        def on_step_end(self, step: int) -> None:
            if step == 3:
                raise EndLoop

    loop, recorder = Sum(), Recorder()
    history = run_epochs("sum", 5, 2, loop.epoch, state=lambda: {}, load_state=loop.load, callbacks=[recorder, After()])
    assert [record["epoch"] for record in history] == [1]  # the second epoch has measured nothing
    assert recorder.calls[-2:] == [("step", 3), ("end",)]
