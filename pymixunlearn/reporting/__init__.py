"""Results as people read them: tables for the terminal, and a self-contained HTML report."""

from pymixunlearn.reporting.audit import audit_table, klom_lines
from pymixunlearn.reporting.comparison import ComparisonRow, ComparisonTable, Statistic, comparison_table
from pymixunlearn.reporting.formats import to_rich as comparison_as_rich
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
    "ComparisonRow",
    "ComparisonTable",
    "Row",
    "Statistic",
    "audit_table",
    "comparison_as_rich",
    "comparison_table",
    "evaluation_rows",
    "format_cell",
    "further_rows",
    "klom_lines",
    "render_report",
    "result_rows",
    "rich_table",
    "training_rows",
]
