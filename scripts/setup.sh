#!/usr/bin/env bash
# Set up what is missing: .venv, the pinned packages, a Java, the gRPC stubs. Safe to run again.
#
#   bash scripts/setup.sh          to pack, serve, call and report
#   bash scripts/setup.sh --dev    with what the tests need
#
# PYTHON names an interpreter of version 3.11, 3.12 or 3.13 (default: the first that is found),
# VENV the environment (default: .venv; a relative path starts at the clone). TORCH_INDEX says where
# torch and torchvision come from: "pypi", with CUDA, or the URL of an index. By default that is PyTorch's
# index of CPU builds where there is no NVIDIA driver and it answers (scripts/cpu_torch.py), else PyPI.
# What is installed stays: to choose again, remove the environment.
set -euo pipefail
# With CDPATH, cd could enter a folder of another project.
unset CDPATH
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
groups=(serve quickstart report)
case "$*" in
  "") ;;
  --dev) groups+=(dev) ;;
  *) echo "usage: bash scripts/setup.sh [--dev]" >&2; exit 2 ;;
esac

fail() {
  echo "setup: $*" >&2
  exit 1
}

if [ ! -d "$venv" ] && { [ -e "$venv" ] || [ -L "$venv" ]; }; then
  fail "VENV=$venv is no folder; accepted: a virtual environment, or a path where nothing is."
fi

# Print the version of a Python; fail where it is none that every pin was tried with.
accepted="accepted: Python 3.11, 3.12 or 3.13"
version_of() {
  local said
  said=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || return 1
  # Another program may succeed too, and print anything or nothing.
  [[ $said =~ ^[0-9]+\.[0-9]+$ ]] || return 1
  echo "$said"
  case "$said" in 3.11 | 3.12 | 3.13) ;; *) return 1 ;; esac
}

candidates=(python3.11 python3.12 python3.13 python3 python)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
python= others=
for candidate in "${candidates[@]}"; do
  if version=$(version_of "$candidate"); then
    python=$candidate
    break
  fi
  others="$others${version:+$candidate is $version, }"
done

if [ -e "$venv/bin/python" ]; then
  current=$(version_of "$venv/bin/python") ||
    fail "$venv has Python ${current:-that does not start}; $accepted. Remove it, or name another by VENV."
  if [ -n "${PYTHON:-}" ] && [ "$version" != "$current" ]; then
    fail "PYTHON=$PYTHON is ${version:-no Python that starts}, but $venv has Python $current. Remove it, or name another by VENV."
  fi
else
  [ -n "$python" ] ||
    fail "finds no Python to use (${others:-none starts, }PYTHON=${PYTHON:-}); $accepted. Set PYTHON to one."
  "$python" -m venv "$venv"
fi

# Say in a file what was installed. A new file takes the place of the old one: what is half written is
# never read, and another environment that shares the old file by a hard link keeps it.
write_stamp() {
  echo "$2" >"$1.$$"
  mv -f "$1.$$" "$1"
}

[ -f "$venv/.installed-serve" ] || echo "setup: the first time takes minutes: PyTorch is large"
# A group is installed again when a requirement changed, and left alone otherwise.
for group in "${groups[@]}"; do
  stamp="$venv/.installed-$group"
  wanted=$(cat requirements/constraints.txt "requirements/$group.txt" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && continue
  echo "setup: installing requirements/$group.txt"
  [ "$group" != serve ] || "$venv/bin/python" scripts/cpu_torch.py
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint requirements/constraints.txt --requirement "requirements/$group.txt"
  # Without what they ask for: their lists of requirements say why.
  case "$group" in
    serve) alone=openvino ;;
    dev) alone=grad-cam ;;
    *) alone= ;;
  esac
  if [ -n "$alone" ]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
      --constraint requirements/constraints.txt "$alone"
  fi
  write_stamp "$stamp" "$wanted"
done

java=(-P cli/camserve_cli/serving/java.py)
if ! "$venv/bin/python" "${java[@]}" >/dev/null 2>&1; then
  echo "setup: no Java of version 17 or later here; installing one into $venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement requirements/java.txt
  "$venv/bin/python" "${java[@]}" >/dev/null
fi

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[ -f "$site/inference_pb2_grpc.py" ] || "$venv/bin/python" -P cli/camserve_cli/grpc_stubs.py "$site"

# The project itself, as it lies here: the command camserve. Its own folder is part of the stamp, as
# both may have moved.
wanted=$( (pwd; cat pyproject.toml) | sha256sum)
if [ "$(cat "$venv/.installed-camserve" 2>/dev/null || true)" != "$wanted" ]; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps --no-build-isolation --editable .
  write_stamp "$venv/.installed-camserve" "$wanted"
fi
