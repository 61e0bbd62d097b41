"""A report's files: the page, the table, and the dataset for FiftyOne."""
