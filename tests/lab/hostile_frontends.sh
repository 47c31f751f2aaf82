# A guest that misuses its network interface loses it, with the reason, and others lose nothing.
# lab: --store stubdom --memory 8 --maxmem 16 --ram 2560 --timeout 1500
# xen: 4.17 4.20
. /lab/lib.sh

# What is hostile never rests; dom0, which only asks, need not wait for it.
xl sched-credit2 -d Domain-0 -w 65535

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
eventually 60 xenstore-exists "/local/domain/$STUB/data/uptime"

switched_pair
expect "ping" in_guest g1 ping -c 3 -w 20 10.0.0.12

# whole WHAT: the honest two exchange pings and lose none of them.
whole() {
    expect "a frame to everybody beside $1" in_guest g1 arping -c 1 -w 5 -I eth0 10.0.0.12
    expect "none of 10 pings is lost beside $1" in_guest g1 sh -c \
        "ping -c 10 -i 0.05 -w 30 -q 10.0.0.12 | grep -q \"10 packets received\""
}

# create ACT: creates the hostile guest.
create() {
    expect "xl create" timeout 60 xl create -q /etc/xen/guest.cfg 'name="hostile"' \
        "extra=\"frontend=$1\"" 'vif=["mac=00:16:3e:00:00:66,backend=stubdom"]'
    HOSTILE=$(domid hostile)
}

# destroy: destroys it; nothing of it is left.
destroy() {
    expect "xl destroy" timeout 60 xl destroy hostile
    eventually 30 gone hostile "$HOSTILE"
    refuse "nothing of its interface is left" "" xenstore-exists "/local/domain/$STUB/backend/vif/$HOSTILE/0"
}

# rounds COUNT: the hostile guest was ended that often at least.
rounds() {
    [ "$(xenstore-read "/local/domain/$HOSTILE/data/rounds" 2>/dev/null || echo 0)" -ge "$1" ]
}

# ends ACT REASON [ROUNDS]: the act ends the interface, for that reason, again and again.
ends() {
    say "$1"
    create "$1"
    whole "$1"
    eventually 60 rounds "${3:-5}"
    reason=$(xenstore-read "/local/domain/$HOSTILE/data/reason")
    case $reason in
    *"$2"*) echo "ok: ended: $reason" ;;
    *) fail "$1 was ended for this: $reason" ;;
    esac
    destroy
}

ends chain "too many slots"
ends cut "in the middle of a frame"
ends outside "beyond its page"
ends sizes "larger than the frame"
ends extra "extra information"
ends grant "cannot be used"
ends index "impossible ring indexes"
ends ring "cannot be mapped"
# Only when somebody sends to it.
ends page "cannot be used" 1

for act in deaf flood spoof; do
    say "$act"
    create "$act"
    sleep 2
    whole "$act"
    destroy
done
say "storm"
# Every write is an event for the domain of the switch, and there is always another.
create storm
sleep 2
whole storm
age() {
    xenstore-read "/local/domain/$STUB/data/uptime"
}
before=$(age)
aged() {
    [ "$(age)" -ge $((before + 8)) ]
}
eventually 90 aged
said() {
    xl dmesg | grep -cF "(d$STUB) the policy has"
}
equal "it says what it knows once, though it looks again and again" 1 said
expect "xl create of another" timeout 60 xl create -q /etc/xen/guest.cfg 'name="other"' \
    'extra="frontend=deaf"' 'vif=["mac=00:16:3e:00:00:67,backend=stubdom"]'
connected() {
    [ "$(xenstore-read "/local/domain/$STUB/backend/vif/$(domid other)/0/state")" = 4 ]
}
eventually 60 connected
expect "xl destroy of the other" timeout 60 xl destroy other
destroy
expect "their network works" in_guest g2 ping -c 3 -w 20 10.0.0.11
