#!/usr/bin/env bash
# The controller's environment in .venv, from uv.lock: needs nothing but Python 3 (or uv) and, on Debian and Ubuntu,
# root to install python3-venv where it is missing. Run again, it changes nothing and takes a second.
set -euo pipefail
cd "$(dirname "$0")/.."

find_uv() {
  if command -v uv >/dev/null; then command -v uv; return; fi
  if [ ! -x .bootstrap/bin/uv ]; then
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
      echo "bootstrap: installing python3-venv" >&2
      { apt-get update && apt-get install --yes --no-install-recommends python3-venv; } >&2
    fi
    echo "bootstrap: installing uv from the package index into .bootstrap" >&2
    python3 -m venv .bootstrap >&2
    .bootstrap/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1' >&2
  fi
  echo "$PWD/.bootstrap/bin/uv"
}

# pyenv's shims answer to every name and then refuse: uv is shown the interpreter behind them.
find_python() {
  local candidate
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3.12 /usr/bin/python3.12; do
    if [ -x "$candidate" ]; then echo "$candidate"; return; fi
  done
}

if [ -z "${UV_PYTHON:-}" ]; then
  UV_PYTHON=$(find_python)
  if [ -n "$UV_PYTHON" ]; then export UV_PYTHON; else unset UV_PYTHON; fi
fi
"$(find_uv)" sync --locked --quiet --extra controller
