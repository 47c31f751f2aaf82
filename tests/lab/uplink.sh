# A guest on the switch reaches dom0 through the uplink, and dom0 reaches the guest.
# lab: --ram 2560 --timeout 1200
# xen: 4.17 4.20
. /lab/lib.sh

brctl addbr br0
ip link set br0 up
ip addr add 10.0.0.1/24 dev br0
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg 'vif=["script=/lab/vif.sh,bridge=br0"]'
STUB=$(domid stubdom)
connected() {
    [ "$(xenstore-read "/local/domain/0/backend/vif/$STUB/0/state")" = 4 ]
}
eventually 60 connected

switched_pair

say "through the uplink"
expect "g1 reaches dom0" in_guest g1 ping -c 3 -w 20 10.0.0.1
expect "dom0 reaches g2" ping -c 3 -w 20 10.0.0.12
expect "both reach each other" in_guest g1 ping -c 3 -w 20 -s 3000 10.0.0.12
expect "files to fetch" in_guest g1 sh -c \
    "mkdir /tmp/www; head -c 4000000 /dev/urandom >/tmp/www/file; httpd -h /tmp/www"
mkdir -p /tmp/www
head -c 4000000 /dev/urandom >/tmp/www/file
busybox httpd -h /tmp/www
sum_of() {
    sha256sum "$1" | cut -d " " -f 1
}
fetched() {
    wget -q -O /tmp/fetched http://10.0.0.11/file
    sum_of /tmp/fetched
}
equal "4 MB from g1 to dom0 arrive unharmed" "$(in_guest g1 sha256sum /tmp/www/file | cut -d ' ' -f 1)" fetched
expect "g2 fetches as much from dom0" in_guest g2 wget -q -O /tmp/fetched http://10.0.0.1/file
equal "it arrives unharmed" "$(sum_of /tmp/www/file)  /tmp/fetched" in_guest g2 sha256sum /tmp/fetched

say "the uplink goes and comes back"
free() {
    xenstore-read "/local/domain/$STUB/data/figures/memory_free_bytes"
}
before=$(free)
expect "xl detaches it" xl network-detach stubdom 0
expect "nobody is behind it" in_guest g1 sh -c "! ping -c 1 -w 2 10.0.0.1"
expect "g1 and g2 reach each other all the same" in_guest g1 ping -c 3 -w 20 10.0.0.12
# Its backend has let go of the pages, 128 of each direction, when nothing happens to the interface.
freed() {
    in_guest g1 ping -c 1 -w 5 10.0.0.12 && [ "$(free)" -ge $((before + 1000000)) ]
}
eventually 60 freed
expect "xl attaches it" xl network-attach stubdom script=/lab/vif.sh bridge=br0
reached() {
    in_guest g1 ping -c 1 -w 2 10.0.0.1
}
eventually 60 reached
expect "dom0 reaches g2 again" ping -c 3 -w 20 10.0.0.12

say "the switch begins anew"
expect "xl destroy stubdom" timeout 60 xl destroy stubdom
eventually 30 gone stubdom "$STUB"
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg 'vif=["script=/lab/vif.sh,bridge=br0"]'
STUB=$(domid stubdom)
eventually 60 connected
for number in 1 2; do
    # The guest looks at its own half only: it does not know before that its interface is gone.
    expect "xl detaches g$number" timeout 60 xl network-detach "g$number" 0
    eventually 60 in_guest "g$number" sh -c "! ip link show eth0"
    expect "xl attaches g$number" timeout 60 xl network-attach "g$number" \
        "mac=00:16:3e:00:00:0$number" backend=stubdom
    eventually 60 in_guest "g$number" ip link set eth0 up
    expect "an address" in_guest "g$number" ip addr add "10.0.0.1$number/24" dev eth0
done
expect "g1 reaches g2" in_guest g1 ping -c 3 -w 20 10.0.0.12
expect "g1 reaches dom0" in_guest g1 ping -c 3 -w 20 10.0.0.1
