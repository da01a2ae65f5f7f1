"""Old place of :mod:`pymixunlearn.nn.mixblock`."""

from pymixunlearn._renamed import moved

moved(__name__, "pymixunlearn.nn.mixblock")
