#!/usr/bin/env bash
# From a fresh clone to an explained photo: set up, package, serve, explain over HTTP and gRPC.
# Leaves the server running; a second run takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh
exec "${VENV:-.venv}/bin/python" -P -m camserve_cli quickstart
