"""The golden wire test: requests that were recorded once, byte for byte, and their replies.

``records`` has the format of the files, ``replay`` sends what they hold, ``compare`` judges what
comes back, ``server`` starts what answers; ``cases`` and ``record`` write new records.
"""
