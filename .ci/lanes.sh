# shellcheck shell=bash
# What .ci/run and .ci/full share. A lane is a function that is timed and whose failure does not stop the next lane; the
# failure of a trial is printed only. The arguments of the script name the functions to run, in place of all.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTEST_ADDOPTS KERAS_BACKEND TF_USE_LEGACY_KERAS

# Everything is made inside the clone: nothing of the user's home is read or written.
export XDG_CACHE_HOME="$PWD/.ci/cache"
export PIP_CACHE_DIR="$XDG_CACHE_HOME/pip" KERAS_HOME="$XDG_CACHE_HOME/keras" KERAS_EFFNET_HOME="$XDG_CACHE_HOME/keras_effnet"

# Photographs kept beside the clone; without them the tests that need them skip, and say so.
if [ -z "${KERAS_EFFNET_TEST_DATA:-}" ] && [ -d ../shared/data ]; then
    KERAS_EFFNET_TEST_DATA=$(cd ../shared/data && pwd)
    export KERAS_EFFNET_TEST_DATA
fi

wanted=("$@")
mapfile -t known < <(sed -n 's/^\(lane\|trial\) "[^"]*" //p' ".ci/$(basename "$0")")
for name in "${wanted[@]}"; do
    if [[ " ${known[*]} " != *" $name "* ]]; then
        echo "There is no lane '$name'. Expected some of: ${known[*]}." >&2
        exit 2
    fi
done
results=()
failures=0

lane() { # lane NAME FUNCTION
    local name=$1 start=$SECONDS status
    if [ "${#wanted[@]}" -gt 0 ] && [[ " ${wanted[*]} " != *" $2 "* ]]; then return; fi
    printf '\n===== %s\n' "$name"
    set +e
    (set -euo pipefail; "$2")
    status=$?
    set -e
    local row
    row=$(printf '%-6s %5d s  %s' "$([ "$status" -eq 0 ] && echo ok || echo FAILED)" $((SECONDS - start)) "$name")
    results+=("$row")
    if [ "$status" -ne 0 ]; then failures=$((failures + 1)); fi
    printf '===== %s\n' "$row"
}

trial() { # trial NAME FUNCTION: a lane whose failure counts for nothing
    local before=$failures
    lane "$@"
    if [ "$failures" -gt "$before" ]; then results[-1]+=" (a trial: this fails nothing)"; fi
    failures=$before
}

report() {
    printf '\n===== lanes\n'
    printf '%s\n' "${results[@]}"
    [ "$failures" -eq 0 ]
}

# What the lanes' tests need beside the package; TensorFlow is not among it.
test_tools=(hypothesis pytest pytest-xdist scikit-image)

new_venv() { # new_venv NAME REQUIREMENT...: an environment of its own under .ci/lanes, dropped by drop_venv
    python3 -m venv --clear ".ci/lanes/$1"
    ".ci/lanes/$1/bin/pip" install -qq --no-compile "${@:2}" "${test_tools[@]}"
}

drop_venv() {
    rm -rf ".ci/lanes/$1"
}

# The README's own commands, so that the two cannot drift apart.
readme_command() { # readme_command EXTRA
    grep -m 1 -F "\".[$1]\"" README.md
}

wheel() {
    echo dist/keras_effnet-*.whl
}
