#!/usr/bin/env bash
# Start, stop and ask after a TorchServe on this machine: bash scripts/serve.sh --help
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
exec "${VENV:-$here/.venv}/bin/python" -P -m camserve_cli serve "$@"
