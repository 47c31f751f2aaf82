# How long a block takes from one Linux guest to another, and from dom0 to a guest, and a flag back:
# by a data channel, and by the virtual network through dom0.
. /lab/lib.sh

figure() {
    echo "measure $1 $2 $3"
}

# of NAME COMMAND...: prints as figures what `transfers` printed.
of() {
    local name=$1 line
    shift
    line=$("$@") || fail "\`$*\` failed: $line"
    # median M slowest S rate R
    # shellcheck disable=SC2086
    set -- $line
    [ "${1:-}" = median ] || fail "$name: $line"
    figure "$name" "$2" us
    figure "$name-slowest" "$4" us
    figure "$name-rate" "$6" MB/s
}

# counter NAME: prints one of the stub's counts, which are some seconds old at most.
counter() {
    xenstore-read "$STUB/counters" | tr ' ' '\n' | awk -v name="$1" 'found { print; exit } $1 == name { found = 1 }'
}

brctl addbr br0
ip link set br0 up
ip addr add 10.0.0.1/24 dev br0
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=/local/domain/$(domid stubdom)/data
eventually 60 xenstore-exists "$STUB/uptime"
xenstore-write "$STUB/policy/all" "allow * serve *
allow * push *"
expect "announce" datafront announce stubdom

for number in 1 2; do
    expect "xl create" xl create -q /etc/xen/linux.cfg "name=\"g$number\"" \
        'vif=["script=/lab/vif.sh,bridge=br0"]'
done
ready 400 g1 g2
for number in 1 2; do
    expect "an address" in_guest "g$number" sh -c \
        "ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.1$number/24 dev eth0"
done
for server in "take blocks" "take-http 0.0.0.0:80" "take-tcp 0.0.0.0:81"; do
    expect "$server" in_guest g2 sh -c "transfers $server >/tmp/out 2>&1 </dev/null &"
done
eventually 60 in_guest g1 transfers push blocks 64 1

for size in 64 65536 8388608; do
    count=100
    [ "$size" -lt 1000000 ] || count=5
    for from in guest dom0; do
        by=
        [ "$from" = dom0 ] || by="in_guest g1"
        before=$(($(counter events) + $(counter notifications)))
        # shellcheck disable=SC2086
        of "$from-push-$size" $by transfers push blocks "$size" "$count"
        # shellcheck disable=SC2086
        of "$from-http-$size" $by transfers push-http http://10.0.0.12/ "$size" "$count"
        # shellcheck disable=SC2086
        of "$from-kept-$size" $by transfers push-http http://10.0.0.12/ "$size" "$count" --keep
        # shellcheck disable=SC2086
        of "$from-tcp-$size" $by transfers push-tcp 10.0.0.12:81 "$size" "$count"
        sleep 10
        after=$(($(counter events) + $(counter notifications)))
        # One more block than was counted goes first.
        figure "$from-notifications-$size" \
            "$(awk "BEGIN { print ($after - $before) / ($size * ($count + 1) / 1048576) }")" /MiB
    done
done
