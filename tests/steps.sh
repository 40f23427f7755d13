# shellcheck shell=bash
#
# Named steps with their time, counted; for tests/run and .ci/run, which source this.
#
# A step that fails does not keep the next ones from running: one run shows all that is wrong.
# STEPS_PASSED and STEPS_FAILED carry the count from one script to the next.

set -euo pipefail

# Above this a step hangs.
readonly STEP_SECONDS_MAX=1200

steps_passed=${STEPS_PASSED:-0}
steps_failed=${STEPS_FAILED:-0}

# step TITLE COMMAND ARGUMENT...
step() {
    local title=$1 began=$SECONDS status=0
    shift
    printf '\n=== %s\n' "$title"
    timeout --foreground --kill-after=10 "$STEP_SECONDS_MAX" "$@" </dev/null || status=$?
    case $status in
    0)
        steps_passed=$((steps_passed + 1))
        printf -- '--- passed: %s (%d s)\n' "$title" $((SECONDS - began))
        ;;
    124 | 137)
        steps_failed=$((steps_failed + 1))
        printf -- '--- FAILED: %s (not over after %d s)\n' "$title" $((SECONDS - began))
        ;;
    *)
        steps_failed=$((steps_failed + 1))
        printf -- '--- FAILED: %s (exit code %d, %d s)\n' "$title" "$status" $((SECONDS - began))
        ;;
    esac
}

# The last line, and the exit code.
finish_steps() {
    printf '\n%d passed, %d failed\n' "$steps_passed" "$steps_failed"
    ((steps_failed == 0)) || exit 1
    exit 0
}
