# SPDX-License-Identifier: Apache-2.0
# For the checks: each says all that it finds before it fails.
set -u
src=$1
build=$2
n_bad=0

bad() {
    echo "$*" >&2
    n_bad=$((n_bad + 1))
}

# Fails now unless the command succeeds; its output is shown only then.
must() {
    what=$1
    shift
    if ! "$@" >"$tmp/out" 2>&1; then
        cat "$tmp/out" >&2
        bad "failed: $what"
        exit 1
    fi
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"; [ $n_bad -eq 0 ] || exit 1' EXIT
cd "$src" || exit 1
