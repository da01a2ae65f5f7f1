"""Method that is a function of a user, in plain PyTorch: for audits of methods that this package does not have."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.methods.base import Method, MethodConfig, MethodOutput, UnlearnJob
from pymixunlearn.methods.view import Images, labelled
from pymixunlearn.training.device import seeded_layers

Unlearn = Callable[[nn.Module, "LabelledInputs", "LabelledInputs"], "nn.Module | None"]
"""``function(model, forget, retain)``: changes the model in place, or returns another one."""

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class NoConfig(MethodConfig):
    """Settings of a function: none.

    Example:
        >>> NoConfig().to_dict()
        {}
    """


class LabelledInputs(Dataset[tuple[Tensor, int]]):
    """Images as the network takes them, without augmentation, with labels: a map-style data set of torch.

    A sample is (float32 ``[C, H, W]`` on the CPU, int).

    Example:
        >>> from torch.utils.data import DataLoader
        >>> from pymixunlearn import data
        >>> digits = data.load("digits")
        >>> inputs = LabelledInputs(digits.train, digits.preprocess)
        >>> images, targets = next(iter(DataLoader(inputs, batch_size=4)))
        >>> images.shape, targets
        (torch.Size([4, 1, 8, 8]), tensor([0, 1, 2, 3]))
    """

    def __init__(self, images: Images, preprocess: Preprocess) -> None:
        """Take a part of a split, and what makes inputs of its stored images."""
        self._images, self._preprocess = labelled(images), preprocess
        self._targets: list[int] = self._images.targets.tolist()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a sample."""
        return self.__getitems__([range(len(self))[index]])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Return samples, as DataLoader asks for a batch of them."""
        inputs = self._preprocess.evaluation(self._images.gather(torch.tensor(indices, dtype=torch.int64)).cpu())
        return [(one, self._targets[index]) for one, index in zip(inputs, indices, strict=True)]


class FunctionMethod(Method):
    """A function as a method. It is given a copy of the model, D_f and D_r, and is seeded; its name is the method's.

    Example:
        >>> from pymixunlearn import data, models, tasks
        >>> def forget_all(model, forget, retain):
        ...     torch.nn.init.zeros_(next(model.parameters()))
        >>> method = FunctionMethod(forget_all)
        >>> split = tasks.class_split(data.load("digits"), [0])
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> unlearned = method.unlearn(model, split, device="cpu").model
        >>> method.name, bool(next(unlearned.parameters()).any())
        ('forget_all', False)
    """

    config_class = NoConfig
    summary = "a function of the caller's"

    def __init__(self, function: Unlearn) -> None:
        """Take ``function(model, forget, retain)``; the latter two are :class:`LabelledInputs`.

        Raises:
            UserError: It cannot be called.
        """
        if not callable(function):
            raise UserError(
                f"method is {function!r}; expected a function (model, forget, retain) that unlearns, such as one of "
                "plain PyTorch"
            )
        super().__init__()
        self.function = function
        self.name = getattr(function, "__qualname__", type(function).__qualname__)  # type: ignore[misc]

    def _run(self, job: UnlearnJob) -> MethodOutput:
        forget, retain = (LabelledInputs(part, job.split.preprocess) for part in (job.split.forget, job.split.retain))
        started = time.perf_counter()
        # Shuffling draws on the CPU, layers where they compute.
        with seeded_layers(_CPU, job.seed, "function"), seeded_layers(job.device, job.seed, "function"):
            model = self.function(job.model.eval(), forget, retain)
        model = job.model if model is None else model
        if not isinstance(model, nn.Module):
            raise UserError(
                f"function '{self.name}' returned {a_type(model)}; expected the unlearned torch.nn.Module, or "
                "None where it changed the given one"
            )
        seconds = time.perf_counter() - started
        return MethodOutput(model, [{"epoch": 1, "seconds": seconds}], self.config)
