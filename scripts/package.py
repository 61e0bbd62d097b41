"""The former path of ``camserve package``; it goes away with the next release."""

import os
import sys

NAME = "package"
print(
    f"scripts/{NAME}.py is now `camserve {NAME}`; this path goes away with the next release",
    file=sys.stderr,
    flush=True,
)
command = [sys.executable, "-P", "-m", "camserve_cli", NAME, *sys.argv[1:]]
os.execv(sys.executable, command)  # noqa: S606
