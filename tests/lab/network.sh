# Stock Linux guests on the switch: they come, talk, go and come back, and dom0 carries no frame.
# lab: --store stubdom --memory 8 --maxmem 16 --ram 2560 --timeout 2400
# xen: 4.17 4.20
. /lab/lib.sh

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
eventually 60 xenstore-exists "/local/domain/$STUB/data/uptime"

# background NUMBER FILE COMMAND: a guest runs that beside, with its output in a file.
background() {
    in_guest "g$1" sh -c "($3) >$2 2>/tmp/err </dev/null &" || fail "g$1 cannot run: $3"
}

# state_of NUMBER HANDLE: prints the state of the switch's half of an interface.
state_of() {
    xenstore-read "/local/domain/$STUB/backend/vif/$(domid "g$1")/$2/state"
}

# detached NUMBER DOMID: the switch's half of the guest's first interface is gone.
detached() {
    ! xenstore-exists "/local/domain/$STUB/backend/vif/$1/$2"
}

for number in 1 2 3; do
    create_switched "$number" 'on_reboot="restart"' memory=288
done
ready 400 g1 g2 g3
for number in 1 2 3; do
    give_address "g$number" eth0 "10.0.0.1$number/24"
    equal "the switch's half of g$number is connected" 4 state_of "$number" 0
done

expect "ping" in_guest g1 ping -c 5 -w 20 10.0.0.12
expect "ping of 8,000 bytes, in fragments" in_guest g1 ping -c 2 -w 20 -s 8000 10.0.0.13
expect "ping over IPv6, after neighbour discovery" in_guest g1 ping6 -c 3 -w 20 -I eth0 fe80::216:3eff:fe00:2
equal "no frame came with a wrong checksum" 0 in_guest g2 sh -c \
    "set -- \$(grep ^Tcp: /proc/net/snmp | tail -n 1); shift \$((\$# - 1)); echo \$1"

# sum_of NUMBER: has a guest compute the sum of its file, which takes longer than one command may. No
# frame goes its way meanwhile: QEMU may deliver an interrupt twice, of which a guest dies that computes.
sum_of() {
    background "$1" /tmp/sum "sha256sum </tmp/www/file"
    summed() {
        in_guest "g$1" grep -q -- - /tmp/sum
    }
    eventually 300 summed "$1"
    sum=$(in_guest "g$1" cat /tmp/sum)
}

# carry FROM TO TIMES: so many times 20 MB over TCP, as a file that one serves and the other fetches.
carry() {
    expect "a file of $((20 * $3)) MB in g$1" in_guest "g$1" sh -c "mkdir -p /tmp/www; \
head -c 20000000 /dev/urandom >/tmp/random; for n in \$(seq $3); do cat /tmp/random; done >/tmp/www/file; rm /tmp/random"
    sum_of "$1"
    sent=$sum
    expect "it is fetched" in_guest "g$2" sh -c "mkdir -p /tmp/www; wget -q -O /tmp/www/file http://10.0.0.1$1/file"
    sum_of "$2"
    equal "$((20 * $3)) MB from g$1 to g$2 arrive unharmed" "$sent" echo "$sum"
}
for number in 1 2; do
    expect "a server in g$number" in_guest "g$number" sh -c "mkdir -p /tmp/www; httpd -h /tmp/www"
done
carry 1 2 5
carry 2 1 1
equal "dom0 has no interface of theirs" "" sh -c "ls /sys/class/net | grep vif || true"

say "an address by DHCP, from one guest to the other"
# A guest runs a single line.
expect "a server in g1" in_guest g1 sh -c "cd /tmp; touch leases; echo start 10.0.0.50 >conf; \
echo end 10.0.0.60 >>conf; echo interface eth0 >>conf; echo lease_file /tmp/leases >>conf; \
echo pidfile /tmp/udhcpd.pid >>conf; echo opt subnet 255.255.255.0 >>conf; udhcpd conf"
expect "a client in g3" in_guest g3 sh -c "cd /tmp; echo \"#!/bin/sh\" >script; \
echo \"env >>/tmp/dhcp\" >>script; chmod +x script; udhcpc -i eth0 -n -q -t 10 -s /tmp/script"
expect "it has an address" in_guest g3 grep -qE "^ip=10.0.0.(5.|60)$" /tmp/dhcp

say "interfaces come and go while others are at work"
background 2 /dev/null "while true; do wget -q -O /dev/null http://10.0.0.11/file; sleep 0.2; done"
expect "xl network-attach" timeout 60 xl network-attach g3 mac=00:16:3e:00:01:03 backend=stubdom
eventually 60 in_guest g3 ip link set eth1 up
equal "it is connected" 4 state_of 3 1
expect "it works" in_guest g3 sh -c "ip addr add 10.0.0.33/24 dev eth1; arping -c 2 -w 10 -I eth1 -s 10.0.0.33 10.0.0.12"
expect "xl network-detach" timeout 60 xl network-detach g3 1
expect "nothing of it is left" detached "$(domid g3)" 1
expect "the others go on" in_guest g1 ping -c 2 -w 20 10.0.0.13

say "a driver lets go of its interface, and takes it again"
expect "unbound" in_guest g3 sh -c "echo vif-0 >/sys/bus/xen/drivers/vif/unbind"
equal "the switch has closed its half" 6 state_of 3 0
expect "bound" in_guest g3 sh -c "echo vif-0 >/sys/bus/xen/drivers/vif/bind"
eventually 60 in_guest g3 ip link set eth0 up
equal "the switch is connected again" 4 state_of 3 0
give_address g3 eth0 10.0.0.13/24
expect "it works" in_guest g3 ping -c 3 -w 20 10.0.0.12

say "a guest is destroyed in mid-traffic"
gone_id=$(domid g2)
expect "xl destroy" timeout 60 xl destroy g2
eventually 30 gone g2 "$gone_id"
expect "nothing of its interface is left" detached "$gone_id" 0
expect "the network of the others works" in_guest g1 ping -c 3 -w 20 10.0.0.13

say "a guest reboots and connects again"
before=$(domid g3)
in_guest g3 sh -c "(sleep 1; reboot -f) >/dev/null 2>&1 </dev/null &"
rebooted() {
    local now
    now=$(domid g3) && [ -n "$now" ] && [ "$now" != "$before" ]
}
eventually 120 rebooted
ready 400 g3
give_address g3 eth0 10.0.0.13/24
expect "it is reached" in_guest g1 ping -c 3 -w 20 10.0.0.13
equal "dom0 has no interface of theirs" "" sh -c "ls /sys/class/net | grep vif || true"

say "the end of the switch"
expect "xl destroy stubdom" timeout 60 xl destroy stubdom
eventually 30 gone stubdom "$STUB"
