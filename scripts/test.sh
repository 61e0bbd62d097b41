#!/usr/bin/env bash
# Set up what is missing, then run every check (scripts/check) and the tests.
#
#   bash scripts/test.sh           the tests that are not marked slow or env, and their coverage
#   bash scripts/test.sh --all     those too
#   bash scripts/test.sh tests/handler -k gradcam
#
# Other arguments go to pytest, which then measures no coverage: -n 0 has it run in one process, as a
# debugger wants it, and -m chooses by marks instead.
set -euo pipefail
# With CDPATH, cd could enter a folder of another project.
unset CDPATH
cd "$(dirname "$0")/.."

marks="not slow and not env"
for argument; do
  shift
  if [ "$argument" = --all ]; then marks=; else set -- "$@" "$argument"; fi
done
# The floor (pyproject.toml, fail_under) is of the whole suite.
coverage=--no-cov
[ $# -gt 0 ] || coverage=--cov

bash scripts/setup.sh --dev
scripts/check
exec "${VENV:-.venv}/bin/python" -m pytest "$coverage" -n 2 -m "$marks" "$@"
