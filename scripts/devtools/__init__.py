"""The parts of scripts/bench.py, soak.py and schemas.py, which only developers of camserve run.

``benchmark`` compares our server and pipeline with others, ``fuzzing`` sends broken and valid
requests to a server and checks the answers, ``json_schemas`` generates the schemas in docs/. The
other modules are shared by these: a server to test (``servers``), an edge in front of one
(``edge_proxy``), its processes (``processes``),
the machine (``machine``), statistics of repeated measurements (``measurements``).
"""
