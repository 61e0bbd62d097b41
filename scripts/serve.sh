#!/usr/bin/env bash
# Start, stop and ask after a TorchServe on this machine: bash scripts/serve.sh --help
set -euo pipefail
# With CDPATH, cd could enter a folder of another project.
unset CDPATH
clone=$(cd "$(dirname "$0")/.." && pwd)
venv=${VENV:-.venv}
# The arguments may name files relative to the current folder, so it stays the current folder.
[[ $venv = /* ]] || venv=$clone/$venv
if [ ! -x "$venv/bin/python" ]; then
  echo "serve: no Python in $venv; run: bash scripts/setup.sh" >&2
  exit 2
fi
exec "$venv/bin/python" -P -m camserve_cli serve "$@"
