# The data role's own addresses, and its uplink to dom0's bridge.
# lab: --store c --no-linux --timeout 400
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
fetch() {
    wget -q -O "$1" http://10.9.0.2/metrics
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
