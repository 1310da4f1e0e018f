"""`write_report`: a run as one self-contained HTML page, to look at rather than to read."""

from wscl_embed.report.contents import ReportInput
from wscl_embed.report.writing import write_report

__all__ = ["ReportInput", "write_report"]
