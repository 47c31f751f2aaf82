# Stock Linux guests on the switch come and talk, and dom0 carries no frame.
# lab: --store stubdom --memory 8 --maxmem 16 --ram 2560 --timeout 1500
. /lab/lib.sh

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
eventually 60 xenstore-exists "/local/domain/$STUB/data/uptime"

# create NUMBER OPTION...: creates the guest gNUMBER with an interface on the switch.
create() {
    local number=$1
    shift
    expect "xl create g$number within libxl's time-outs" timeout 60 xl create -q /etc/xen/linux.cfg \
        "name=\"g$number\"" "vif=[\"mac=00:16:3e:00:00:0$number,backend=stubdom\"]" "$@"
}

# up NUMBER: gives the guest its addresses.
up() {
    expect "addresses of g$1" in_guest "g$1" sh -c \
        "ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.1$1/24 dev eth0"
}

# background NUMBER FILE COMMAND: a guest runs that beside, with its output in a file.
background() {
    in_guest "g$1" sh -c "($3) >$2 2>/tmp/err </dev/null &" || fail "g$1 cannot run: $3"
}

# state_of NUMBER HANDLE: prints the state of the switch's half of an interface.
state_of() {
    xenstore-read "/local/domain/$STUB/backend/vif/$(domid "g$1")/$2/state"
}

for number in 1 2 3; do
    create "$number"
done
ready 400 g1 g2 g3
for number in 1 2 3; do
    up "$number"
    equal "the switch's half of g$number is connected" 4 state_of "$number" 0
done

expect "ping" in_guest g1 ping -c 5 -w 20 10.0.0.12
expect "ping of 8,000 bytes, in fragments" in_guest g1 ping -c 2 -w 20 -s 8000 10.0.0.13
expect "ping over IPv6, after neighbour discovery" in_guest g1 ping6 -c 3 -w 20 -I eth0 fe80::216:3eff:fe00:2
equal "no frame came with a wrong checksum" 0 in_guest g2 sh -c \
    "set -- \$(grep ^Tcp: /proc/net/snmp | tail -n 1); shift \$((\$# - 1)); echo \$1"

# carry FROM TO: blocks over TCP, each of which the other acknowledges.
carry() {
    background "$2" /dev/null "transfers take-tcp 0.0.0.0:90"
    sleep 1
    expect "blocks of 8 MiB by TCP from g$1 to g$2" in_guest "g$1" \
        transfers push-tcp "10.0.0.1$2:90" 8388608 3
}
carry 1 2
carry 2 1
equal "dom0 has no interface of theirs" "" sh -c "ls /sys/class/net | grep vif || true"
