# The configurations that the README shows make a switch between guests, and one with a way out.
# The store is the same image, in its other role.
# lab: --store stubdom --memory 8 --maxmem 16 --ram 2560 --timeout 1200
# xen: 4.17 4.20
. /lab/lib.sh

# Debian's own script for this wants more of a host than is here.
echo 'vif.default.script="/lab/vif.sh"' >>/etc/xen/xl.conf
brctl addbr br0
ip link set br0 up
ip addr add 10.9.0.1/24 dev br0

# create NAME: by its configuration, as it is.
create() {
    expect "xl create $1" timeout 60 xl create -q "/etc/xen/$1.cfg"
}

# from GUEST HOST: a guest reaches a host.
from() {
    expect "switched-$1 reaches $2" in_guest "switched-$1" ping -c 3 -w 30 "$2"
}

say "a switch between two guests"
create stubdom
for number in 1 2; do
    create "switched-$number"
done
ready 400 switched-1 switched-2
give_address switched-1 eth0 10.9.0.11/24
give_address switched-2 eth0 10.9.0.12/24
from 1 10.9.0.12
from 2 10.9.0.11
expect "dom0 is not there" in_guest switched-1 sh -c "! ping -c 1 -w 2 10.9.0.1"
equal "dom0 has no interface of theirs" "" sh -c "ls /sys/class/net | grep vif || true"

say "the same guests when the switch comes back with a way out"
id=$(domid stubdom)
expect "it obeys xl shutdown" xl shutdown -w stubdom
eventually 60 gone stubdom "$id"
for number in 1 2; do
    id=$(domid "switched-$number")
    expect "xl destroy switched-$number" xl destroy "switched-$number"
    eventually 60 gone "switched-$number" "$id"
done
create uplink
create switched-1
ready 400 switched-1
give_address switched-1 eth0 10.9.0.11/24
# reached HOST: dom0 reaches a host.
reached() {
    ping -c 1 -W 2 "$1"
}
eventually 60 reached 10.9.0.2
from 1 10.9.0.1
from 1 10.9.0.2
eventually 30 reached 10.9.0.11
expect "the guest reads the figures" in_guest switched-1 sh -c \
    "wget -q -O - http://10.9.0.2/metrics | grep -q '^stubdom_switch_ports 3'"
expect "the store's are there, too" xenstore-read /tool/xenstored/figures/store_requests_total
