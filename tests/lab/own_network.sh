# The data role's own addresses, given and asked for, and its uplink to dom0's bridge.
# lab: --store c --no-linux --timeout 600
# xen: 4.17 4.20
. /lab/lib.sh

brctl addbr br0
ip link set br0 up
ip addr add 10.9.0.1/24 dev br0

say "a data role with an uplink and an address"
expect "xl creates it" xl create -q /etc/xen/stubdom.cfg \
    'extra="ip=10.9.0.2/24"' 'vif=["script=/lab/vif.sh,bridge=br0"]'
id=$(domid stubdom)
uplink=/local/domain/0/backend/vif/$id/0
connected() {
    [ "$(xenstore-read "$uplink/state")" = 4 ]
}
eventually 60 connected
answers() {
    ping -c 1 -W 2 10.9.0.2
}
eventually 60 answers
expect "it answers ping" ping -c 20 -i 0.1 -w 20 10.9.0.2
# fetch FILE [HOST]: gets the page.
fetch() {
    wget -q -O "$1" "http://${2:-10.9.0.2}/metrics"
}
expect "and HTTP" fetch /tmp/page
cat /tmp/page
expect "it counts the uplink's frames" \
    grep -q '^stubdom_switch_frames_total{port="uplink1",direction="in"} [1-9]' /tmp/page
expect "there is no other page" sh -c "! wget -q -O /dev/null http://10.9.0.2/"
many() {
    for number in $(seq 100); do
        fetch /tmp/page || return 1
    done
}
expect "a hundred pages come" many

say "the uplink goes and comes back"
expect "xl detaches it" xl network-detach stubdom 0
expect "nobody is there" sh -c "! ping -c 1 -W 1 10.9.0.2"
expect "xl attaches it" xl network-attach stubdom script=/lab/vif.sh bridge=br0
eventually 60 answers
expect "it obeys xl shutdown" xl shutdown -w stubdom
eventually 60 gone stubdom "$id"

say "an address that a server gives, and IPv6"
ip link set lo up
ip -6 addr add fd00:9::1/64 dev br0
cat >/tmp/udhcpd.conf <<'END'
interface br0
start 10.9.0.100
end 10.9.0.100
lease_file /tmp/leases
pidfile /tmp/udhcpd.pid
option subnet 255.255.255.0
option router 10.9.0.1
option lease 600
END
: >/tmp/leases
udhcpd -f /tmp/udhcpd.conf >/tmp/udhcpd.log 2>&1 &
expect "xl creates it" xl create -q /etc/xen/stubdom.cfg \
    'extra="ip=dhcp ip6=fd00:9::2/64 gw6=fd00:9::1"' 'vif=["script=/lab/vif.sh,bridge=br0"]'
id=$(domid stubdom)
eventually 120 printed "$id" "address 10.9.0.100/24 by DHCP"
expect "it answers ping there" ping -c 3 -w 20 10.9.0.100
expect "and HTTP" fetch /tmp/page 10.9.0.100
eventually 60 ping6 -c 1 -w 5 fd00:9::2
expect "and HTTP over IPv6" fetch /tmp/page "[fd00:9::2]"
# Its address on the link is made of its hardware's, of which dom0 knows from its answers.
mac=$(xl dmesg | sed -n "s/^(d$id) own interface //p")
[ -n "$mac" ] || fail "it does not say what its hardware's address is"
link=$(echo "$mac" | sed 's/^02:\(..\):\(..\):\(..\):\(..\):\(..\)$/fe80::\1:\2ff:fe\3:\4\5/')
expect "it answers ping at its address on the link, $link" ping6 -c 3 -w 20 -I br0 "$link"
equal "its neighbours see that address at its hardware" "$mac" sh -c \
    "ip -6 neigh show dev br0 | awk '\$1 == \"fd00:9::2\" { for (i = 2; i < NF; i++) if (\$i == \"lladdr\") print \$(i + 1) }'"
