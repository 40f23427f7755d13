# shellcheck shell=bash
#
# Named steps with their time, counted; for tests/run and .ci/run, which source this.
#
# A step that fails does not keep the next ones from running: one run shows all that is wrong, and at its end, once
# more, the last lines of each step that failed. STEPS_FOLDER carries what happened from one script to the next.

set -euo pipefail

# Above this a step hangs.
readonly STEP_SECONDS_MAX=1200
# So long, in tenths of a second, what a step said last may take to be shown.
readonly STEP_TENTHS_AFTER=50
# Of the output of a failed step, this much is shown again at the end.
readonly STEP_LINES_SHOWN=60

STEPS_FOLDER=${STEPS_FOLDER:-$(mktemp --directory --tmpdir holdfast-steps.XXXXXX)}
export STEPS_FOLDER
trap 'rm -rf "$STEPS_FOLDER"' EXIT

# step TITLE COMMAND ARGUMENT...
step() {
    local title=$1 began=$SECONDS status=0 why log shown tee tenths
    shift
    log=$(mktemp "$STEPS_FOLDER/log.XXXXXX")
    printf '\n=== %s\n' "$title"
    exec {shown}> >(exec tee "$log")
    tee=$!
    timeout --foreground --kill-after=10 "$STEP_SECONDS_MAX" "$@" </dev/null >&"$shown" 2>&1 {shown}>&- || status=$?
    exec {shown}>&-
    # Not a pipeline, which would wait for whatever outlives the command: a test that hangs outlives its cargo.
    for ((tenths = 0; tenths < STEP_TENTHS_AFTER; tenths++)); do
        kill -0 "$tee" 2>/dev/null || break
        sleep 0.1
    done
    if ((status == 0)); then
        echo "$title" >>"$STEPS_FOLDER/passed"
        printf -- '--- passed: %s (%d s)\n' "$title" $((SECONDS - began))
        rm "$log"
        return
    fi
    case $status in
    124 | 137) why="not over after $((SECONDS - began)) s" ;;
    *) why="exit code $status, $((SECONDS - began)) s" ;;
    esac
    printf '%s %s (%s)\n' "$log" "$title" "$why" >>"$STEPS_FOLDER/failed"
    printf -- '--- FAILED: %s (%s)\n' "$title" "$why"
}

# The last lines, and the exit code.
finish_steps() {
    local log title passed=0 failed=0
    touch "$STEPS_FOLDER/passed" "$STEPS_FOLDER/failed"
    passed=$(wc -l <"$STEPS_FOLDER/passed")
    failed=$(wc -l <"$STEPS_FOLDER/failed")
    while read -r log title; do
        printf '\n=== FAILED: %s; its last lines:\n' "$title"
        tail -n "$STEP_LINES_SHOWN" "$log"
    done <"$STEPS_FOLDER/failed"
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    cut --delimiter=' ' --fields=2- "$STEPS_FOLDER/failed" | sed 's/^/failed: /'
    ((failed == 0)) || exit 1
    exit 0
}
