"""Pictures of results: readable in print, in grey and by the colour-blind."""

from pymixunlearn.reporting.pictures.classes import draw_accuracies, draw_confusion_change
from pymixunlearn.reporting.pictures.curves import draw_curves
from pymixunlearn.reporting.pictures.densities import draw_densities
from pymixunlearn.reporting.pictures.exhibit import (
    Duration,
    Point,
    draw_durations,
    draw_learning_curves,
    draw_shares,
    draw_sweeps,
)
from pymixunlearn.reporting.pictures.margins import Compared, draw_margins
from pymixunlearn.reporting.pictures.representations import draw_representations, draw_representations_of
from pymixunlearn.reporting.pictures.samples import draw_mixes, draw_thumbnails
from pymixunlearn.reporting.pictures.style import Picture, caption_of, inline

__all__ = [
    "Compared",
    "Duration",
    "Picture",
    "Point",
    "caption_of",
    "draw_accuracies",
    "draw_confusion_change",
    "draw_curves",
    "draw_densities",
    "draw_durations",
    "draw_learning_curves",
    "draw_margins",
    "draw_mixes",
    "draw_representations",
    "draw_representations_of",
    "draw_shares",
    "draw_sweeps",
    "draw_thumbnails",
    "inline",
]
