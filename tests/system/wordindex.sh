# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Shared by the tests of acre-wordindex: a daemon of their own, the plain count, verdicts.
set -eu
export LC_ALL=C
: "${ACRE_DAEMON:?run by ctest}" "${ACRECTL:?run by ctest}" "${WORDINDEX:?run by ctest}"

work=$(mktemp -d)
socket=$work/acred.sock
daemon=
clean_up() {
    code=$?
    trap - EXIT
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    wait
    rm -rf "$work"
    exit "$code"
}
trap clean_up EXIT

fail() {
    echo "FAILED: $*" >&2
    [ ! -s "$work/err" ] || sed 's/^/    stderr: /' "$work/err" >&2
    [ ! -s "$work/acred.log" ] || sed 's/^/    acred: /' "$work/acred.log" >&2
    exit 1
}

ok() {
    echo "ok - $*"
}

start_daemon() {
    cat >"$work/acred.conf" <<'END'
capacity = "1G"
tenant "words" { max = "512M" }
tenant "small" { max = "1M" }
END
    "$ACRE_DAEMON" --socket "$socket" --config "$work/acred.conf" 2>"$work/acred.log" &
    daemon=$!
    for _ in $(seq 200); do
        ! "$ACRECTL" --socket "$socket" status >"$work/err" 2>&1 || return 0
        sleep 0.05
    done
    fail "the daemon does not answer"
}

index() {
    "$WORDINDEX" --socket "$socket" --tenant words "$@" 2>"$work/err"
}

# The whole index as coreutils see it.
plain_count() {
    for file in "$@"; do
        cat "$file"
        echo # a word does not go on in the next file
    done | tr 'A-Z' 'a-z' | tr -cs 'a-z' '\n' | sed '/^$/d' | sort | uniq -c |
        sort -k1,1nr -k2,2 | awk '
            { words += $1; line[NR] = "  " $1 " " $2 }
            END { print "words", words + 0, "distinct", NR; for (i = 1; i <= NR; i++) print line[i] }'
}

# live_bytes TENANT
live_bytes() {
    "$ACRECTL" --socket "$socket" stats --json | tr -d ' \n' | grep -o "\"name\":\"$1\"[^[]*" |
        grep -o '"live_bytes":[0-9]*' | cut -d: -f2
}

# Every heap agrees with the daemon's books.
expect_checked() {
    "$ACRECTL" --socket "$socket" check >"$work/err" 2>&1 || fail "acrectl check finds fault"
}

# expect_live TENANT BYTES: who was killed is swept a moment later.
expect_live() {
    expect_checked
    for _ in $(seq 400); do
        [ "$(live_bytes "$1")" != "$2" ] || return 0
        sleep 0.05
    done
    fail "$(live_bytes "$1") bytes live in tenant $1 instead of $2"
}

# expect_same WANTED GOT WHAT
expect_same() {
    cmp -s "$1" "$2" || { diff "$1" "$2" | head -10 >&2; fail "$3: wrong answer"; }
}

everything=1000000000 # for --top
