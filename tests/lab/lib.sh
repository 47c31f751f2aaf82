# What the lab's scripts say their expectations with. To be read by dom0's shell.

set -eu
. /lab/config
. /lab/host.sh

# say TEXT: tells what comes.
say() {
    echo "== $*"
}

# fail TEXT: ends the script.
fail() {
    echo "FAILED: $*"
    exit 1
}

# patiently COMMAND...: runs it, a program for two minutes at most.
patiently() {
    case $(command -v "$1") in
    /*) timeout 120 "$@" ;;
    *) "$@" ;;
    esac
}

# expect WHAT COMMAND...: the command succeeds.
expect() {
    local what=$1 output status
    shift
    if output=$(patiently "$@" 2>&1); then
        echo "ok: $what"
    else
        status=$?
        echo "$output"
        fail "$what: \`$*\` ended with status $status"
    fi
}

# refuse WHAT PATTERN COMMAND...: the command fails, and says why.
refuse() {
    local what=$1 pattern=$2 output
    shift 2
    if output=$(patiently "$@" 2>&1); then
        echo "$output"
        fail "$what: \`$*\` succeeded"
    elif echo "$output" | grep -q "$pattern"; then
        echo "ok: $what"
    else
        echo "$output"
        fail "$what: \`$*\` did not say '$pattern'"
    fi
}

# equal WHAT WANTED COMMAND...: the command prints exactly that.
equal() {
    local what=$1 wanted=$2 found
    shift 2
    found=$(patiently "$@" 2>&1) || true
    [ "$found" = "$wanted" ] || fail "$what: \`$*\` printed '$found', not '$wanted'"
    echo "ok: $what"
}

# eventually SECONDS COMMAND...: the command succeeds within that time.
eventually() {
    local seconds=$1 output until
    shift
    until=$(($(date +%s) + seconds))
    until output=$(patiently "$@" 2>&1); do
        if [ "$(date +%s)" -ge "$until" ]; then
            echo "$output"
            fail "not within $seconds s: \`$*\`"
        fi
        sleep 1
    done
    echo "ok: $*"
}

# domid NAME: prints a domain's number.
domid() {
    timeout 120 xl domid "$1"
}

# listed NAME: whether xl lists a domain of that name.
listed() {
    timeout 120 xl list | awk -v name="$1" '$1 == name { found = 1 } END { exit !found }'
}

# state NAME: prints the domain's state as in `xl list`, or nothing.
state() {
    timeout 120 xl list | awk -v name="$1" '$1 == name { print $5 }'
}

# crashed NAME: whether the domain stands there as crashed.
crashed() {
    case $(state "$1") in
    ????c?) ;;
    *) return 1 ;;
    esac
}

# gone NAME DOMID: nothing of the domain is left, neither in Xen nor in the store.
gone() {
    local domains homes
    domains=$(timeout 120 xl list) && homes=$(timeout 120 xenstore-list /local/domain) || return 1
    echo "$domains" | awk -v name="$1" -v id="$2" \
        '$1 == name || $1 == "(null)" || $2 == id { found = 1 } END { exit found }' &&
        ! echo "$homes" | grep -qx "$2"
}

# printed DOMID TEXT: whether the domain wrote that to port 0xe9.
printed() {
    xl dmesg | grep -F "(d$1) " | grep -qF -e "$2"
}

# ready SECONDS NAME...: each of these Linux guests is up and listens to `in_guest`.
ready() {
    local seconds=$1 guest
    shift
    for guest in "$@"; do
        eventually "$seconds" xenstore-exists "/local/domain/$(domid "$guest")/data/ready"
    done
}

# in_guest NAME COMMAND...: a Linux guest runs this in its shell; prints what it printed
# (2,000 characters at most) and ends with its status. The guest's init tells how that works.
in_guest() {
    local data line number result until
    data=/local/domain/$(domid "$1")/data
    shift
    number=$(($(cat /tmp/asked 2>/dev/null || echo 0) + 1))
    echo "$number" >/tmp/asked
    line=
    for word in "$@"; do
        line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
    done
    xenstore-write "$data/run" "$number$line" || fail "cannot ask the guest"
    until=$(($(date +%s) + 120))
    until result=$(xenstore-read "$data/result" 2>/dev/null) && [ "${result% *}" = "$number" ]; do
        [ "$(date +%s)" -lt "$until" ] || fail "the guest does not answer to:$line"
        sleep 0.3
    done
    printf '%b\n' "$(xenstore-read "$data/output")"
    return "${result#* }"
}

# create_switched NUMBER OPTION...: creates the Linux guest gNUMBER, with an interface on the switch of
# the domain stubdom; libxl waits no longer for it than it usually does.
create_switched() {
    local number=$1
    shift
    expect "xl create g$number" timeout 60 xl create -q /etc/xen/linux.cfg "name=\"g$number\"" \
        "vif=[\"mac=00:16:3e:00:00:0$number,backend=stubdom\"]" "$@"
}

# give_address NAME INTERFACE ADDRESS: a Linux guest has this address, with the bits of its net, there.
give_address() {
    expect "$3 is $2 of $1" in_guest "$1" sh -c \
        "ip link set lo up; ip link set $2 up; ip addr add $3 dev $2"
}

# switched_pair: creates g1 and g2 on the switch, with the addresses 10.0.0.11 and 10.0.0.12.
switched_pair() {
    create_switched 1
    create_switched 2
    ready 400 g1 g2
    give_address g1 eth0 10.0.0.11/24
    give_address g2 eth0 10.0.0.12/24
}

# fill PATH: writes twenty nodes of 1,900 bytes below PATH, all or none; why not is in /tmp/refusal.
fill() {
    local number nodes=
    for number in $(seq 20); do
        nodes="$nodes $1/$number $LARGE"
    done
    # shellcheck disable=SC2086
    timeout 60 xenstore-write $nodes 2>/tmp/refusal
}

# A value that leaves little room in a node.
LARGE=$(head -c 1900 /dev/zero | tr '\0' v)

# fill_memory: fills below /fill/0, /fill/1, ... until the store of 6 MiB has no more memory; the
# number of those that were filled is then in `filled`.
fill_memory() {
    filled=0
    while fill "/fill/$filled"; do
        filled=$((filled + 1))
        [ "$filled" -lt 400 ] || fail "8,000 nodes of 1,900 bytes fit into 6 MiB"
    done
    say "$((filled * 20)) nodes of 1,900 bytes fit; then: $(cat /tmp/refusal)"
}

# store_console: prints what the store's domain wrote on its console.
store_console() {
    tr -d '\r' </var/log/xen/console/guest-Xenstore.log
}

# store_heap DOMID: prints how many bytes of its heap the store's domain used when that domain
# had gone; the store says so on its console.
store_heap() {
    store_console | sed -n "s/^domain $1 is gone; \\([0-9]*\\) bytes in use.*/\\1/p"
}

# record NAME VALUE UNIT: prints a figure of a bench.
record() {
    echo "measure $1 $2 $3"
}

# record_transfers NAME COMMAND...: prints as figures what `transfers` printed.
record_transfers() {
    local name=$1 line
    shift
    line=$("$@") || fail "\`$*\` failed: $line"
    # median M slowest S rate R
    # shellcheck disable=SC2086
    set -- $line
    [ "${1:-}" = median ] || fail "$name: $line"
    record "$name" "$2" us
    record "$name-slowest" "$4" us
    record "$name-rate" "$6" MB/s
}
