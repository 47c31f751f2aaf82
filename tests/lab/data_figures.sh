# How long a block takes from one Linux guest to another, and from dom0 to a guest, and a flag back:
# by a data channel, and by the virtual network through dom0.
. /lab/lib.sh

# counter NAME: prints one of the stub's counts, which are some seconds old at most.
counter() {
    xenstore-read "$STUB/figures/$1_total"
}

brctl addbr br0
ip link set br0 up
ip addr add 10.0.0.1/24 dev br0
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=/local/domain/$(domid stubdom)/data
eventually 60 xenstore-exists "$STUB/uptime"
xenstore-write "$STUB/policy/all" "allow * serve *
allow * push *
limit * memory 8M"
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
# Each guest may use as much as two channels of the largest rings take.
for server in "take small" "--rings 20 take large" "take-http 0.0.0.0:80" "take-tcp 0.0.0.0:81"; do
    expect "$server" in_guest g2 sh -c "transfers $server >/tmp/out 2>&1 </dev/null &"
done
eventually 60 in_guest g1 transfers push small 64 1
eventually 60 in_guest g1 transfers push large 64 1

# direct RINGS: opens a vchan in g2 that only g1 can take, once; sets `direct` to what it is.
direct() {
    expect "a vchan without a stub" in_guest g2 sh -c \
        "transfers --rings $1 take-direct $(domid g1) >/tmp/direct 2>&1 </dev/null &"
    sleep 2
    direct=$(in_guest g2 cat /tmp/direct)
}

# from WHO COMMAND...: runs it there.
from() {
    local who=$1
    shift
    case $who in
    dom0) "$@" ;;
    *) in_guest g1 "$@" ;;
    esac
}

for who in guest dom0; do
    for size in 64 65536 8388608; do
        count=100 to=small rings=16
        [ "$size" -lt 1000000 ] || count=5 to=large rings=20
        record_transfers "$who-push-$size" from "$who" transfers --rings "$rings" push "$to" "$size" "$count"
        url=http://10.0.0.12/
        record_transfers "$who-http-$size" from "$who" transfers push-http "$url" "$size" "$count"
        record_transfers "$who-kept-$size" from "$who" transfers push-http "$url" "$size" "$count" --keep
        record_transfers "$who-tcp-$size" from "$who" transfers push-tcp 10.0.0.12:81 "$size" "$count"
        [ "$who" = guest ] || continue
        direct "$rings"
        # shellcheck disable=SC2086
        record_transfers "$who-direct-$size" in_guest g1 transfers push-direct "$(domid g2)" $direct "$size" "$count"
    done
    sleep 11
    before=$(($(counter events) + $(counter notifications)))
    record_transfers "$who-push-small-rings" from "$who" transfers push small 8388608 2
    sleep 11
    after=$(($(counter events) + $(counter notifications)))
    # Three blocks, one goes before the two that are timed; two rings, the sender's and the receiver's.
    record "$who-events" "$(awk "BEGIN { print ($after - $before) / (3 * 8 * 2) }")" /MiB
done
