# What the way between two Linux guests costs: through our switch, and through the bridge of dom0.
. /lab/lib.sh

# ping_of NAME COMMAND...: prints the average of a ping as a figure; none may be lost.
ping_of() {
    local name=$1 output average
    shift
    output=$("$@") || fail "\`$*\` failed: $output"
    echo "$output" | grep -q " 0% packet loss" || fail "$name: $output"
    # round-trip min/avg/max = 0.9/1.0/2.0 ms
    average=$(echo "$output" | sed -n 's|^round-trip min/avg/max = [0-9.]*/\([0-9.]*\)/.*|\1|p')
    [ -n "$average" ] || fail "$name: $output"
    record "$name" "$(awk "BEGIN { print $average * 1000 }")" us
}

# counts: prints the stub's counts of all that it did until now; it publishes them every ten seconds.
counts() {
    sleep 11
    local count
    for count in events notifications grant_copy_calls grant_copies; do
        printf '%s %s ' "$count" "$(xenstore-read "$STUB/figures/${count}_total")"
    done
    echo
}

# grown NAME BEFORE AFTER: prints by how much a count has grown.
grown() {
    echo "$2 $3" | awk -v name="$1" '
        { for (i = 1; i < NF; i++) if ($i == name) { grown = $(i + 1) - grown; found++ } }
        END { if (found != 2) exit 1; print grown }'
}

brctl addbr br0
ip link set br0 up
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=/local/domain/$(domid stubdom)/data
eventually 60 xenstore-exists "$STUB/figures/events_total"

for number in 1 2; do
    expect "xl create" xl create -q /etc/xen/linux.cfg "name=\"g$number\"" \
        "vif=[\"mac=00:16:3e:00:00:0$number,backend=stubdom\",\"mac=00:16:3e:00:01:0$number,script=/lab/vif.sh,bridge=br0\"]"
done
ready 400 g1 g2
for number in 1 2; do
    for net in 0 1; do
        equal "eth$net of g$number" "00:16:3e:00:0$net:0$number" \
            in_guest "g$number" cat "/sys/class/net/eth$net/address"
        give_address "g$number" "eth$net" "10.$net.0.1$number/24"
    done
    expect "a server" in_guest "g$number" sh -c \
        "transfers take-tcp 0.0.0.0:81 >/tmp/out 2>&1 </dev/null &"
done

# send NET FROM TO SIZE COUNT: blocks from one guest to the other.
send() {
    in_guest "g$2" transfers push-tcp "10.$1.0.1$3:81" "$4" "$5"
}

LARGE=8388608
BLOCKS=9

# counted NET FROM TO: sends large blocks through the switch, and prints what a MiB costs it.
counted() {
    local before after name grown
    before=$(counts)
    record_transfers "switch-$2-to-$3" send "$1" "$2" "$3" "$LARGE" "$BLOCKS"
    after=$(counts)
    for name in grant_copy_calls grant_copies events notifications; do
        grown=$(grown "$name" "$before" "$after") || fail "no count of $name: $before, $after"
        # One block goes before those that are timed.
        record "$name-$2-to-$3" "$(awk "BEGIN { print $grown / (($BLOCKS + 1) * 8) }")" /MiB
    done
}

for way in switch:0 bridge:1; do
    name=${way%:*} net=${way#*:}
    # Neighbours are known and windows open before anything is timed.
    for ends in "1 2" "2 1"; do
        # shellcheck disable=SC2086
        eventually 60 send "$net" $ends "$LARGE" 1
    done
    ping_of "$name-ping" in_guest g1 ping -q -c 100 -i 0.1 -w 60 "10.$net.0.12"
    record_transfers "$name-64" send "$net" 1 2 64 1000
    for ends in "1 2" "2 1"; do
        # shellcheck disable=SC2086
        case $name in
        switch) counted "$net" $ends ;;
        *) record_transfers "$name-${ends% *}-to-${ends#* }" send "$net" $ends "$LARGE" "$BLOCKS" ;;
        esac
    done
done
