#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A worker is killed at each step of a small job in turn, and its successors at the first steps of taking over: new words,
# known words, new buckets and the doubling of the table. Each index is kept and dropped entry by entry, so that a block that
# recovery has lost would still be there at the end.
# ctest-timeout: 600
. "$(dirname "$0")/wordindex.sh"

stride=${WORDINDEX_STRIDE:-1}
start_daemon
echo a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg hh a aa A >"$work/text"
plain_count "$work/text" >"$work/want"

# steps K[,K...]: false if the job has fewer steps
steps() {
    index --workers 1 --kill-at "$1" --top $everything --keep kept "$work/text" >"$work/got" ||
        fail "killed at $1: exit code $?"
    expect_same "$work/want" "$work/got" "killed at $1"
    ! grep -q 'fewer steps' "$work/err"
}

seen=$work/seen
k=1
while steps "$k"; do
    cat "$work/err" >>"$seen"
    index --drop kept
    steps "$k,1,2" || fail "a successor has fewer than two steps"
    cat "$work/err" >>"$seen"
    index --drop kept
    k=$((k + stride))
done
index --drop kept
[ "$k" -gt 300 ] || fail "the job has only $k steps"
ok "the answer is exact wherever one worker, or three in a row, are killed: $((k - 1)) steps"

if [ "$stride" -eq 1 ]; then
    for step in "block allocated" "block filled" "block noted" "block given" "place in the list found" "block linked" \
        "note cleared" "bucket set" "table doubled" "word found" "line half written" "line written" "line committed" \
        "after an update" "count repeated" "note looked at"; do
        grep -q "$step" "$seen" || fail "no kill at: $step"
    done
    ok "the kills have met every kind of step"
fi

expect_live words 0
ok "nothing is left in the heap"
