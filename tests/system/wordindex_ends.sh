#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How acre-wordindex ends when it cannot do its work, or is not let: one sentence, the exit code, nothing left in the heap.
# ctest-timeout: 300
. "$(dirname "$0")/wordindex.sh"

start_daemon
head -c 4000000 /usr/share/wordnet/data.noun >"$work/text"

# expect CODE PATTERN ARGUMENT...: the exit code, nothing on stdout, one sentence on stderr
expect() {
    local code=$1 pattern=$2 got=0
    shift 2
    "$WORDINDEX" "$@" >"$work/got" 2>"$work/err" || got=$?
    [ "$got" -eq "$code" ] || fail "$*: exit code $got instead of $code"
    grep -q "$pattern" "$work/err" || fail "$*: the sentence does not say \"$pattern\""
    [ "$code" -eq 2 ] || [ "$(wc -l <"$work/err")" -eq 1 ] || fail "$*: not one line"
    [ ! -s "$work/got" ] || fail "$*: an answer, too"
}

there=(--socket "$socket" --tenant words)
expect 2 'no FILE'
expect 2 'workers' --workers 0 "$work/text"
expect 2 'workers' --workers many "$work/text"
expect 2 'unrecognized' --no-such-option
expect 2 'either' --kill-one --kill-at 3 "$work/text"
ok "wrong arguments are exit code 2"
expect 1 'missing: No such file' "${there[@]}" "$work/text" "$work/missing"
expect 1 'Is a directory' "${there[@]}" "$work"
expect 1 'Not a regular file' "${there[@]}" /dev/null
expect 1 'no index "nothing"' "${there[@]}" --show nothing
expect 1 'no index "nothing"' "${there[@]}" --drop nothing
expect 1 'cannot open the heap' --socket "$socket" --tenant nobody "$work/text"
ok "a missing file, directory, index or tenant is exit code 1"
expect 3 'cannot open the heap' --socket "$work/nothing.sock" "$work/text"
ok "no daemon is exit code 3"

before=$(live_bytes words)
for workers in 1 4; do
    expect 1 'full' --socket "$socket" --tenant small --workers $workers "$work/text"
    expect_live small 0
done
ok "a heap that is full is one sentence and exit code 1, and all comes back"

index --keep kept "$work/text" >/dev/null
expect 1 '"kept"' "${there[@]}" --keep kept "$work/text"
index --drop kept
expect_live words "$before"
ok "a name that is taken is not taken again"

# The workers of a running job: children of the process $1.
workers_of() { cat "/proc/$1/task/$1/children" 2>/dev/null || true; }
# Does the process run? A zombie that nobody reaps does not.
runs() { grep -q '^State:[[:space:]]*[RSDTt]' "/proc/$1/status" 2>/dev/null; }
starting() {
    for _ in $(seq 500); do
        [ -z "$(workers_of "$1")" ] || return 0
        sleep 0.01
    done
    fail "no workers"
}

long=()
for _ in $(seq 20); do
    long+=("$work/text")
done
for round in 1 2 3 4 5; do
    "$WORDINDEX" "${there[@]}" --workers 4 "${long[@]}" >"$work/got" 2>"$work/err" &
    job=$!
    starting $job
    workers=$(workers_of $job)
    sleep 0.0$round
    kill -KILL $job 2>/dev/null || fail "the job was too fast to be killed"
    wait $job 2>/dev/null || true
    for worker in $workers; do
        for _ in $(seq 500); do
            runs "$worker" || break
            sleep 0.01
        done
        ! runs "$worker" || fail "worker $worker has outlived its parent"
    done
    expect_live words "$before"
done
ok "when the parent is killed its workers end too, and all comes back"

plain_count "${long[@]}" >"$work/want"
"$WORDINDEX" "${there[@]}" --workers 3 --top $everything "${long[@]}" >"$work/got" 2>"$work/err" &
job=$!
starting $job
for _ in 1 2 3 4 5 6; do
    for worker in $(workers_of $job); do
        kill -KILL "$worker" 2>/dev/null || true
    done
    sleep 0.02
done
wait $job || fail "exit code $?"
n_killed=$(grep -c 'taken over' "$work/err") || fail "no worker was killed"
expect_same "$work/want" "$work/got" "after $n_killed kills from outside"
expect_live words "$before"
ok "workers that others kill are replaced, and the answer is exact ($n_killed kills)"

"$WORDINDEX" "${there[@]}" --workers 4 "${long[@]}" "${long[@]}" >"$work/got" 2>"$work/err" &
job=$!
starting $job
kill -KILL "$daemon"
wait "$daemon" 2>/dev/null || true
daemon=
code=0
wait $job || code=$?
[ "$code" -eq 3 ] || [ "$code" -eq 0 ] || fail "exit code $code after the daemon's death"
[ "$code" -eq 0 ] || [ "$(wc -l <"$work/err")" -eq 1 ] || fail "not one line"
ok "when the daemon is killed, the job ends with one sentence and exit code 3, or did not need it any more"
