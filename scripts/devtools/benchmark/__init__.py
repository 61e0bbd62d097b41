"""What scripts/bench.py is made of; start reading there."""

import sys
from pathlib import Path

# Our side is measured in process too.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "handler"))
