#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The index of acre-wordindex equals a plain count by coreutils, word for word, whatever the text looks like, however many
# workers there are, and also when one of them is killed.
# ctest-timeout: 300
. "$(dirname "$0")/wordindex.sh"

start_daemon
mkdir "$work/text"
cd "$work/text"
real=(noun verb)
head -c 300000 /usr/share/wordnet/data.noun >noun
tail -c 200000 /usr/share/wordnet/data.verb >verb

# check WORKERS EXTRA... -- FILE...
check() {
    local workers=$1 extra=()
    shift
    while [ "$1" != -- ]; do
        extra+=("$1")
        shift
    done
    shift
    plain_count "$@" >"$work/want"
    index --workers "$workers" "${extra[@]}" --top $everything "$@" >"$work/got" ||
        fail "$workers workers ${extra[*]} $*: exit code $?"
    expect_same "$work/want" "$work/got" "$workers workers ${extra[*]} $*"
}

for workers in 1 2 4 8; do
    check "$workers" -- "${real[@]}"
    for seed in 1 2 3 4; do
        check "$workers" --kill-one --seed "$seed" -- "${real[@]}"
        [ "$(grep -c 'killed by signal 9.*taken over' "$work/err")" -eq 1 ] || fail "not one worker was killed"
    done
done
ok "real text is counted exactly by 1, 2, 4 and 8 workers, with and without a kill"

letters() { head -c "$1" /dev/zero | tr '\0' "$2"; }
: >empty
printf '1234 5678\n,.;\200\377\0' >none
letters 3000000 q >giant
{ printf 'begin '; letters 500000 w; letters 500000 W; printf ' end'; } >middle
printf 'ends in a half' >half1
printf 'half begins the next; Half, HALF half1half\n' >half2
printf 'a' >one
printf 'a b' >two
awk 'BEGIN { for (i = 0; i < 40000; i++) printf "%c%c%c ", 97 + i % 26, 97 + i / 26 % 26, 97 + i / 676 % 26 }' >short
head -c 400000 "$WORDINDEX" >binary
for workers in 1 2 3 4 8 64; do
    for files in empty none giant middle one two short binary "half1 half2" "empty half1 empty none half2 empty" \
        "one one one giant one"; do
        # shellcheck disable=SC2086
        check "$workers" -- $files
    done
done
ok "no text, no letters, words beyond a slab, words over all parts and file ends, binary files are counted exactly"

for seed in 1 2 3 4; do
    for files in empty none giant middle one "half1 half2"; do
        # shellcheck disable=SC2086
        check 4 --kill-one --seed "$seed" -- $files
    done
done
ok "so they are when a worker is killed"

plain_count "${real[@]}" | head -11 >"$work/want"
index "${real[@]}" >"$work/got"
expect_same "$work/want" "$work/got" "the usual call"
[ ! -s "$work/err" ] || fail "something on stderr that is no terminal"
ok "by default the ten most frequent words are shown, and no progress where there is no terminal"

if script -qec true /dev/null </dev/null >/dev/null 2>&1; then
    script -qec "'$WORDINDEX' --socket '$socket' --tenant words noun verb" "$work/screen" </dev/null >/dev/null
    grep -q ' % of 0.5 MB' "$work/screen" || fail "no progress on a terminal"
    ok "a terminal sees the progress"
else
    echo "skipped - a terminal sees the progress: this machine has no pseudo-terminals"
fi

plain_count "${real[@]}" >"$work/want"
index --workers 4 --kill-one --seed 7 --keep kept "${real[@]}" >/dev/null
index --show kept --top $everything >"$work/got"
expect_same "$work/want" "$work/got" "--show"
[ "$(live_bytes words)" -gt 0 ] || fail "a kept index has no bytes"
index --drop kept
ok "an index that is kept is read by another process and dropped by a third"

expect_live words 0
ok "nothing is left in the heap"
