"""The golden wire test: requests that were recorded once, byte for byte, and their replies.

``records`` reads and writes the files, ``replay`` sends the requests, ``compare`` compares the
replies with the recorded ones, ``server`` starts the server. ``cases`` and ``record`` make new
records.
"""
