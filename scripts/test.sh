#!/usr/bin/env bash
# Set up what is missing, then run every check and every test. Arguments go to pytest; -n 0 has it run
# in one process, as a debugger wants it.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh --dev
bin=${VENV:-.venv}/bin

"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
PYTHONPATH=handler "$bin/lint-imports"
# Tests of one file stay together: they share servers.
exec "$bin/python" -m pytest -n 2 --dist loadfile "$@"
