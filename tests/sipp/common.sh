# shellcheck shell=bash
#
# What tests/sipp/run and tests/sipp/lost have in common; sourced.
#
# Addresses are in 127.64.0.0/10 and belong to the process, so that several runs do not meet.

readonly START_TIMEOUT=10
readonly network=127.$((64 + $$ / 254 % 64)).$(($$ % 254 + 1))
readonly server=$network.1 caller=$network.2 callee=$network.3 proxy_address=$network.4
readonly callee_port=5070

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# shellcheck source=tests/certificates.sh
. "$root/tests/certificates.sh"

work=''
server_pid='' caller_pid='' callee_pid='' proxy_pid=''
passed=no

# Ends what this script started, and nothing else.
clean_up() {
    local pid
    for pid in $caller_pid $callee_pid $server_pid $proxy_pid; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    if [[ -n $server_pid ]]; then
        sleep 1
        kill -KILL "$server_pid" 2>/dev/null || true
    fi
    if [[ $passed == yes ]]; then
        rm -rf "$work"
    else
        echo "logs are kept in $work" >&2
    fi
}

# make_work: a directory for all files, which is removed if the run passes.
make_work() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-sipp.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# need PROGRAM PACKAGE
need() {
    if ! command -v "$1" >/dev/null; then
        echo "there is no $1: install it (Debian: apt-get install $2)" >&2
        exit 2
    fi
}

fail() {
    echo "FAILED: $1" >&2
    shift
    local file
    for file in "$@"; do
        [[ -s $file ]] || continue
        echo "--- $(basename "$file")" >&2
        # Both ends: the first error is the cause, the last lines say what came of it.
        grep -av 'stats shard=' "$file" | awk '
            { line[NR] = substr($0, 1, 2000) }
            END {
                for (i = 1; i <= NR; i++)
                    if (NR <= 100 || i <= 60 || i > NR - 40) print line[i]
                    else if (i == 61) print "[...]"
            }' >&2 || true
    done
    exit 1
}

# is_listening ADDRESS PORT [udp]
is_listening() {
    local a b c d local_address file=tcp state=0A
    IFS=. read -r a b c d <<<"$1"
    printf -v local_address '%02X%02X%02X%02X:%04X' "$d" "$c" "$b" "$a" "$2"
    # An unconnected socket.
    [[ ${3:-} != udp ]] || file=udp state=07
    awk -v address="$local_address" -v state="$state" '
        $2 == address && $4 == state { found = 1 } END { exit !found }' "/proc/net/$file"
}

# wait_for_listener PID ADDRESS PORT [udp]
wait_for_listener() {
    local deadline=$((SECONDS + START_TIMEOUT)) pid=$1
    shift
    until is_listening "$@"; do
        if ((SECONDS > deadline)) || ! kill -0 "$pid" 2>/dev/null; then
            return 1
        fi
        sleep 0.05
    done
}

# port_of TRANSPORT
port_of() {
    if [[ $1 == tls ]]; then echo 5061; else echo 5060; fi
}

# stats_value LINE NAME: the number behind NAME=, or nothing.
stats_value() {
    sed -n "s/.* $2=\([0-9]*\).*/\1/p" <<<"$1"
}

last_stats() {
    grep -a 'stats total' "$work/server.log" | tail -n 1
}

# start_kamailio WITH_TLS CALLER SERVER_URI: at 5060, and over TLS at 5061 if WITH_TLS is yes. New calls
# of CALLER go to the server.
start_kamailio() {
    local defines=()
    [[ $1 == no ]] || defines+=(-A WITH_TLS)
    [[ -z $2 ]] || defines+=(-A WITH_FRONT)
    sed "s/ADDRESS/$proxy_address/; s/CALLER/$2/; s/SERVER/$3/; s|DIRECTORY|$work|" \
        "$here/kamailio.cfg" >"$work/kamailio.cfg"
    mkdir "$work/kamailio"
    kamailio -DD -E "${defines[@]}" -f "$work/kamailio.cfg" -Y "$work/kamailio" -m 64 \
        </dev/null >"$work/proxy.log" 2>&1 &
    proxy_pid=$!
    wait_for_listener "$proxy_pid" "$proxy_address" 5060 ||
        fail 'kamailio does not listen' "$work/proxy.log"
}
