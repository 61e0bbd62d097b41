"""A folder of photos explained -> what the model gets wrong, and what it looks at (``report``)."""
