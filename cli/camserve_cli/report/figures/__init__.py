"""Columns of explained photos -> the figures of a report, each a pure function."""
