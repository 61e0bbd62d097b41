"""placeholder"""
from camserve_cli.report.columns import ReportColumns
from pathlib import Path
def export_fiftyone(columns: ReportColumns, folder: Path, out: Path) -> None:
    raise NotImplementedError
