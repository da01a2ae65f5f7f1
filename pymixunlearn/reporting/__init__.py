"""Results as people read them: tables for the terminal, and a self-contained HTML report."""

from pymixunlearn.reporting.audit import audit_table, klom_lines
from pymixunlearn.reporting.comparison import ComparisonRow, ComparisonTable, Statistic, comparison_table
from pymixunlearn.reporting.deletion_record import (
    FORMAT,
    FORMAT_1,
    RECORD,
    deletion_record,
    record_sha256,
    schema,
    upgraded_record,
)
from pymixunlearn.reporting.formats import to_rich as comparison_as_rich
from pymixunlearn.reporting.html import render_report
from pymixunlearn.reporting.metrics_record import MODELS, OTHER_TOOL, SECOND, VERSION, measured, row_name, upgraded
from pymixunlearn.reporting.table import (
    Row,
    evaluation_rows,
    format_cell,
    further_rows,
    result_rows,
    rich_table,
    training_rows,
)
from pymixunlearn.reporting.verdict import verdict

__all__ = [
    "FORMAT",
    "FORMAT_1",
    "MODELS",
    "OTHER_TOOL",
    "RECORD",
    "SECOND",
    "VERSION",
    "ComparisonRow",
    "ComparisonTable",
    "Row",
    "Statistic",
    "audit_table",
    "comparison_as_rich",
    "comparison_table",
    "deletion_record",
    "evaluation_rows",
    "format_cell",
    "further_rows",
    "klom_lines",
    "measured",
    "record_sha256",
    "render_report",
    "result_rows",
    "rich_table",
    "row_name",
    "schema",
    "training_rows",
    "upgraded",
    "upgraded_record",
    "verdict",
]
