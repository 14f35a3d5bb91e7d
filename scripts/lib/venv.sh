# Sourced by the other scripts: `setup_venv` leaves a working .venv in the repository, and says
# nothing when there is nothing to do. Needs Python 3.11 or later and no root.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV=$ROOT/.venv
STAMP=$VENV/.installed

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local candidate found="" reasons=""
    # The name may be there and still not run: a version manager leaves such names behind.
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if ! command -v "$candidate" >/dev/null 2>&1; then
            reasons+="  $candidate: not found"$'\n'
        elif ! found=$("$candidate" --version 2>&1); then
            reasons+="  $candidate: does not run"$'\n'
        elif ! is_new_enough "$candidate"; then
            reasons+="  $candidate: is $found"$'\n'
        elif ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            reasons+="  $candidate: is $found, but without venv (Debian, Ubuntu: install its -venv package)"$'\n'
        else
            echo "$candidate"
            return
        fi
        if [[ $candidate == "${PYTHON:-}" ]]; then
            break # asked for by name: say what is wrong with it, and take no other
        fi
    done
    {
        echo "setup: Resolute needs Python 3.11 or later. Looked for:"
        printf '%s' "$reasons"
        echo "setup: install one, or name it: PYTHON=/path/to/python3 $0"
    } >&2
    return 1
}

setup_venv() {
    local python wanted
    if ! is_new_enough "$VENV/bin/python"; then
        python=$(find_python) || exit 1
        echo "setup: creating .venv with $("$python" --version)"
        rm -rf "$VENV"
        "$python" -m venv "$VENV"
    fi
    # The folder is part of it: an editable install and its scripts hold absolute paths.
    wanted=$("$VENV/bin/python" -c '
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
print(hashlib.sha256((root / "pyproject.toml").read_bytes()).hexdigest(), root)' "$ROOT")
    if [[ $(cat "$STAMP" 2>/dev/null || true) != "$wanted" ]]; then
        echo "setup: installing resolute and its development tools into .venv"
        (cd "$ROOT" && "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]")
        echo "$wanted" >"$STAMP"
    fi
}
