#!/usr/bin/env bash
# From a fresh clone to an explained photo: set up, package, serve, explain over HTTP and gRPC.
# Leaves the server running; a second run takes seconds.
set -euo pipefail
# With CDPATH, cd could enter a folder of another project.
unset CDPATH
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
  echo "usage: bash scripts/quickstart.sh (camserve quickstart --help lists options)" >&2
  exit 2
fi
bash scripts/setup.sh
exec "${VENV:-.venv}/bin/python" -P -m camserve_cli quickstart
