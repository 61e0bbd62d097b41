"""The former path of ``camserve ready``; it goes away with the next release.

As before, it needs Python and nothing else.
"""

import runpy
import sys
from pathlib import Path

print(
    "scripts/ready.py is now `camserve ready`; this path goes away with the next release",
    file=sys.stderr,
)
root = Path(__file__).resolve().parent.parent
probe = runpy.run_path(str(root / "cli" / "camserve_cli" / "serving" / "ready.py"))
sys.exit(probe["main"](run_dir=str(root / ".run")))
