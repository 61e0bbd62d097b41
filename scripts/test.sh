#!/usr/bin/env bash
# Set up what is missing, then run every check and every test. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh --dev
bin=${VENV:-.venv}/bin

"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
PYTHONPATH=handler "$bin/lint-imports"
exec "$bin/python" -m pytest "$@"
