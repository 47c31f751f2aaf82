# Debian's vchan-socket-proxy, which knows nothing of us, uses channels of the data role.
# lab: --store c --timeout 900
# xen: 4.20
. /lab/lib.sh

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
DATA=/local/domain/$STUB/data
eventually 60 xenstore-exists "$DATA/uptime"
xenstore-write "$DATA/policy/lab" "allow * echo
allow * stream *"
expect "announce" datafront announce stubdom
expect "xl create g1" xl create -q /etc/xen/linux.cfg 'name="g1"'
ready 400 g1
G1=$(domid g1)

# A megabyte of which no two parts are the same, in both domains.
megabyte='seq 1000000 | head -c 1048576'
sh -c "$megabyte" >/tmp/megabyte
in_guest g1 sh -c "$megabyte >/tmp/megabyte"
wanted=$(sha256sum </tmp/megabyte)

# The proxy ends with its input and leaves what it did not read, so its input stays open a while.
proxy="vchan-socket-proxy -m client $STUB"

say "an echo"
for rings in "left=10 right=11" "left=16 right=16" "left=20 right=20"; do
    expect "dom0 asks" xenstore-write "$DATA/ask/echo" "echo $rings"
    eventually 10 xenstore-exists "$DATA/vchan/0/echo/event-channel"
    equal "$rings: dom0 has back what it sent" "$wanted" \
        sh -c "{ cat /tmp/megabyte; sleep 3; } | $proxy $DATA/vchan/0/echo - | sha256sum"
    expect "dom0 takes its request back" xenstore-rm "$DATA/ask/echo"
    gone_from_store() {
        ! xenstore-exists "$DATA/vchan/0/echo"
    }
    eventually 10 gone_from_store
done
expect "a guest asks" in_guest g1 xenstore-write "$DATA/ask/g1" "echo"
eventually 10 xenstore-exists "$DATA/vchan/$G1/g1/event-channel"
for time in first second; do
    equal "the guest has back what it sent, the $time time" "$wanted" in_guest g1 \
        sh -c "{ cat /tmp/megabyte; sleep 3; } | $proxy $DATA/vchan/$G1/g1 - | sha256sum"
done

say "a stream, with datafront at the other end"
expect "a guest asks" in_guest g1 xenstore-write "$DATA/ask/tape" "stream tape"
eventually 10 xenstore-exists "$DATA/vchan/$G1/tape/event-channel"
in_guest g1 sh -c "({ cat /tmp/megabyte; sleep 20; } | $proxy $DATA/vchan/$G1/tape - >/tmp/came) >/dev/null 2>&1 </dev/null &"
equal "dom0 receives what the guest's proxy sends" "$wanted" \
    sh -c "{ cat /tmp/megabyte; sleep 5; } | datafront stream tape | head -c 1048576 | sha256sum"
equal "and the other way round" "$wanted" in_guest g1 sh -c 'sleep 2; sha256sum </tmp/came'
! crashed stubdom || fail "the data role has crashed"
