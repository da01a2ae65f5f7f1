"""Old place of :mod:`pymixunlearn.tasks.deletion_list`."""

from pymixunlearn._renamed import moved

moved(__name__, "pymixunlearn.tasks.deletion_list")
