"""Planted shortcuts: pictures, marks and networks made here, on which the report is tried."""
