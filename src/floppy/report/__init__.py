"""Reports: one HTML file that shows a dataset to people who have never met it."""

from floppy.report.report import write_report as write_report
