"""pymixunlearn: Adversarial Mixup Unlearning for PyTorch image classifiers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pymixunlearn")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
