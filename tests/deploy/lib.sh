# SPDX-License-Identifier: Apache-2.0
# Inside of the root, for both ways: with systemd as process 1 and without. Dies at the first thing that is wrong.
set -eu
here=/root/acre-test
export DEBIAN_FRONTEND=noninteractive

fail() {
    echo "failed: $*" >&2
    [ ! -e "$here/log" ] || cat "$here/log" >&2
    exit 1
}

# As somebody who is neither root nor the daemon.
as_user() {
    setpriv --reuid 12345 --regid 12345 --clear-groups "$@"
}

expect_book() {
    as_user acre-wordindex --show=book >"$here/shown" 2>&1 || fail "$1, the index is gone: $(cat "$here/shown")"
    cmp "$here/counted" "$here/shown" || fail "$1, the index is another one"
}

# Clients of another user leave an index in the heap; one of them is killed at work.
make_book() {
    as_user acre-wordindex --kill-one -w 3 --keep=book "$here/text" >"$here/out" 2>&1 ||
        fail "acre-wordindex: $(cat "$here/out")"
    as_user acre-wordindex --show=book >"$here/counted"
}

until_true() {
    for _ in $(seq 100); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    fail "never: $*"
}

# All names, and what is in /etc, but for what changes anyway and belongs to no package's files.
list_files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
        -o -path /var/log -o -path /var/cache -o -path /var/tmp -o -path /var/lib/apt \
        -o -path '/var/lib/dpkg/*-old' -o -path '/etc/*-' -o -path /etc/.pwd.lock \) -prune \
        -o -print | sort
    find /etc -type f ! -name '*-' ! -name passwd ! -name group ! -name shadow ! -name gshadow \
        ! -name ld.so.cache -exec sha256sum {} + | sort
}

expect_nothing_left() {
    dpkg -l acred libacre0 libacre-dev acre-tools 2>/dev/null | grep -E '^.[^n]' | grep acre &&
        fail "packages are left"
    list_files >"$here/after"
    diff "$here/before" "$here/after" >"$here/left" || fail "left behind: $(cat "$here/left")"
    [ -e /run/acre ] && fail "/run/acre is still there"
    pgrep -x acred && fail "a daemon is still running"
    getent passwd acred >/dev/null || fail "the user is gone: Debian keeps users"
    return 0
}

install_packages() {
    apt-get -q -y --no-install-recommends install "$here"/*.deb >"$here/out" 2>&1 || fail "$(cat "$here/out")"
}

purge_packages() {
    apt-get -q -y purge acred libacre0 libacre-dev acre-tools >"$here/out" 2>&1 || fail "$(cat "$here/out")"
    grep -i "warning" "$here/out" && fail "dpkg warns"
    return 0
}
