#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A worker is killed at a random instant, many times: by itself inside an update or by its parent. Each index is kept and
# dropped entry by entry, so that a block that recovery has lost would still be there at the end.
# ctest-timeout: 600
. "$(dirname "$0")/wordindex.sh"

seeds=${WORDINDEX_SEEDS:-200}
start_daemon
head -c 150000 /usr/share/wordnet/data.noun >"$work/text"
plain_count "$work/text" >"$work/want"

inside=0
for seed in $(seq "$seeds"); do
    workers=$((1 + seed % 8))
    index --workers $workers --kill-one --seed "$seed" --top $everything --keep kept "$work/text" >"$work/got" ||
        fail "seed $seed, $workers workers: exit code $?"
    [ "$(grep -c 'killed by signal 9.*taken over' "$work/err")" -eq 1 ] || fail "seed $seed: not one worker was killed"
    ! grep -q 'inside an update' "$work/err" || inside=$((inside + 1))
    expect_same "$work/want" "$work/got" "seed $seed, $workers workers"
    index --drop kept || fail "seed $seed: the index cannot be dropped"
done
[ "$inside" -gt $((seeds / 5)) ] || fail "only $inside of $seeds kills were inside an update"
ok "the answer is exact at $seeds random kills, $inside of them inside an update of the map"

expect_live words 0
ok "nothing is left in the heap"
