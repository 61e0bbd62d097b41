"""report.parquet: a row for each explained photo, in flat columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camserve_cli.report.box_agreement import is_outside
from camserve_cli.report.columns import BESIDE, BOX_FIGURES, ReportColumns
from camserve_cli.report.photo_file import PROPERTIES
from camserve_cli.report.requests import TOP
from camserve_cli.report.store import read_line

#: So many photos are in memory at once.
_ROWS_A_GROUP = 2000


def write_parquet(lines: Path, path: Path, columns: ReportColumns) -> None:
    """Write the table, compressed with zstd, in groups of rows.

    Args:
        lines: the JSON lines.
        path: of the table.
        columns: of the same photos; the rows are in their order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(columns)
    partial = path.with_name(f"{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for rows in _batched(range(len(columns.photos)), _ROWS_A_GROUP):
            records = list(_records(lines, rows, columns))
            writer.write_table(pa.Table.from_pylist(records, schema))
    partial.replace(path)


def _schema(columns: ReportColumns) -> Any:
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    fields = {
        "photo": pa.string(),
        "true": pa.list_(pa.string()),
        "predicted": pa.string(),
        "predicted_id": pa.int32(),
        "right": pa.bool_(),
        "probability": pa.float32(),
        "margin": pa.float32(),
        "top_labels": pa.list_(pa.string()),
        "top_probabilities": floats,
        "evidence": pa.bool_(),
        "peak": pa.float32(),
        "map_shape": pa.list_(pa.int32()),
        "map": floats,
        **dict.fromkeys(_STATISTICS, pa.float32()),
        **{name: pa.float32() for name in PROPERTIES},
        "camera": pa.string(),
    }
    if columns.boxes:
        fields |= {f"box_{name}": pa.float32() for name in BOX_FIGURES}
        fields["outside_box"] = pa.bool_()
    for name in columns.faithfulness:
        fields |= {f"{name}_{beside}": pa.float32() for beside in BESIDE}
    if columns.compared_maps is not None:
        fields |= {
            "compared_predicted": pa.string(),
            "compared_probability": pa.float32(),
            "compared_map": floats,
        }
    return pa.schema(list(fields.items()))


_STATISTICS = (
    "entropy", "gini", "centre_x", "centre_y", "spread", "border", "corners", "explained",
)  # fmt: skip


def _records(lines: Path, rows: Sequence[int], columns: ReportColumns) -> Iterator[dict[str, Any]]:
    outside = is_outside(columns)
    places = [int(columns.places[row]) for row in rows]
    for row, line in zip(rows, read_line(lines, places), strict=True):
        reply = line["reply"]
        best, predictions = reply["explanations"][0], reply["predictions"][:TOP]
        statistics = dict(best.get("map_statistics") or {})
        statistics["centre_x"], statistics["centre_y"] = statistics.get("centre") or (None, None)
        compared = line.get("compared", {})
        yield {
            # A name that is not UTF-8 is no text.
            "photo": line["photo"].encode("utf-8", "replace").decode(),
            "true": [label["label"] for label in line.get("true", ())],
            "predicted": best["label"],
            "predicted_id": best["class_id"],
            "right": bool(columns.right[row]) if columns.known[row] else None,
            "probability": best["probability"],
            "margin": predictions[0]["probability"] - predictions[1]["probability"]
            if len(predictions) > 1
            else None,
            "top_labels": [one["label"] for one in predictions],
            "top_probabilities": [one["probability"] for one in predictions],
            "evidence": best["evidence"],
            "peak": best["peak"],
            "map_shape": best["map"]["shape"],
            "map": best["map"]["values"],
            **{name: statistics.get(name) for name in _STATISTICS},
            **{name: line.get("properties", {}).get(name) for name in PROPERTIES},
            "camera": line.get("camera"),
            **{f"box_{name}": value for name, value in line.get("boxes", {}).items()},
            "outside_box": bool(outside[row]) if "boxes" in line else None,
            **{
                f"{name}_{beside}": figures.get(beside)
                for name, figures in best.get("faithfulness", {}).items()
                for beside in BESIDE
            },
            "compared_predicted": compared.get("label"),
            "compared_probability": compared.get("probability"),
            "compared_map": compared.get("map", {}).get("values"),
        }


def _batched(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
