"""Old name of :mod:`pymixunlearn.experiments.unlearn.report`."""

from pymixunlearn._renamed import moved

moved(__name__, "pymixunlearn.experiments.unlearn.report")
