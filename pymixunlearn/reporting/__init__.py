"""Results as people read them: tables for the terminal, and a self-contained HTML report."""

from pymixunlearn.reporting.html import render_report
from pymixunlearn.reporting.table import (
    Row,
    evaluation_rows,
    format_cell,
    further_rows,
    result_rows,
    rich_table,
    training_rows,
)

__all__ = [
    "Row",
    "evaluation_rows",
    "format_cell",
    "further_rows",
    "render_report",
    "result_rows",
    "rich_table",
    "training_rows",
]
