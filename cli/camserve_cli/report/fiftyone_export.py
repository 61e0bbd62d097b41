"""placeholder"""

from pathlib import Path

from camserve_cli.report.columns import ReportColumns


def export_fiftyone(columns: ReportColumns, folder: Path, out: Path) -> None:
    raise NotImplementedError
