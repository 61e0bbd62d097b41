#!/usr/bin/env bash
# From a fresh clone to an explained photo: set up, package, serve, explain over HTTP and gRPC.
# Leaves the server running; a second run takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/setup.sh
python=${VENV:-.venv}/bin/python

# resnet50 where its weights are to be had; the stand-in otherwise, and from then on.
model=resnet50
if [ -f model_store/efficientnet-lite0.mar ] && [ ! -f model_store/resnet50.mar ]; then
  model=efficientnet-lite0
elif [ ! -f model_store/resnet50.mar ]; then
  status=0
  "$python" scripts/package.py || status=$?
  if [ "$status" = 3 ]; then
    model=efficientnet-lite0
    "$python" scripts/package.py --stand-in
  elif [ "$status" != 0 ]; then
    exit "$status"
  fi
fi
if [ "$model" != resnet50 ]; then
  echo "quickstart: ResNet50's ImageNet weights could not be reached from this machine, so this is"
  echo "quickstart: EfficientNet-Lite0, an ImageNet CNN that a Python package carries. To try for"
  echo "quickstart: ResNet50 again: rm model_store/$model.mar"
fi

bash scripts/serve.sh stop >/dev/null
bash scripts/serve.sh start --models "$model" >/dev/null
"$python" scripts/quickstart_calls.py "$model"
