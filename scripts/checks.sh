# What scripts/test and scripts/release count by: sourced, not run.

# Everything is built once, so what cargo would keep to build it again sooner is many gigabytes for nothing.
export CARGO_INCREMENTAL=0

passed=0
failed=0
# What failed, to be said again at the end, where it is seen.
faults=()
outputs=$(mktemp -d)
log=$outputs/log
declare -A beside=()
trap 'for job in "${beside[@]}"; do kill -- "-$job" 2>/dev/null; done; rm -rf "$outputs"' EXIT

# With the seconds since the start, so that what takes long is seen.
section() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

# One check that passes or fails as a whole.
check() {
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        faults+=("$*")
        printf 'FAILED: %s\n' "$*"
    fi
}

# The lines of the last output that say what failed: `named PATTERN OF WHAT`.
named() {
    local lines
    mapfile -t lines < <(grep -E "$1" "$log" | sort -u | head -n 20)
    faults+=("${lines[@]/#/$2: }")
}

count() {
    passed=$((passed + ${1:-0}))
    failed=$((failed + ${2:-0}))
}

# A script whose last line is `N passed, M failed`.
counted() {
    "$@" 2>&1 | tee "$log"
    if [[ $(tail -n 1 "$log") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
        count "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}"
        [ "${BASH_REMATCH[2]}" -eq 0 ] || named '^FAILED' "$*"
    else
        count 0 1
        faults+=("$* ended without a count")
    fi
}

# Runs beside what follows, with what that leaves of the processors: `begin NAME COMMAND...`. It is asked for by `ended`.
begin() {
    local name=$1
    shift
    setsid nice -n 19 bash -c '"${@:2}" >"$1" 2>&1; echo $? >"$1.code"' begin "$outputs/$name" "$@" &
    beside[$name]=$!
}

# Waits for what was begun and stands for it, by its output and its exit code: `check ended NAME`, `counted ended NAME`.
ended() {
    # Not by `wait`, as this may be in a shell of its own, which has no children. What was killed left no code.
    while [ ! -e "$outputs/$1.code" ] && kill -0 "${beside[$1]}" 2>/dev/null; do sleep 1; done
    cat "$outputs/$1"
    return "$(cat "$outputs/$1.code" 2>/dev/null || echo 1)"
}

# The last lines, and the exit code.
finish() {
    if [ "${#faults[@]}" -gt 0 ]; then
        printf '\n== what failed\n'
        printf '%s\n' "${faults[@]}"
    fi
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" -eq 0 ]
}
