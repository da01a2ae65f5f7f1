"""Old place of :mod:`pymixunlearn.nn.losses`."""

from pymixunlearn._renamed import moved

moved(__name__, "pymixunlearn.nn.losses")
