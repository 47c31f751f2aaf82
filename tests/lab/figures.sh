# What the host's Xenstore costs, as guests and dom0 see it, in lines `measure NAME VALUE UNIT`.
#
# `cargo xtask bench lab` runs it with each server in turn, on the same host otherwise. Time passes
# with instructions there, two nanoseconds each, those of the scheduler and the hypervisor included.
. /lab/lib.sh
. /lab/meter.sh

COUNT=2000

say "dom0's own programs, through its kernel's ring"
# The first run finds nothing in any cache.
patiently rate write 1 500 >/dev/null
for programs in 1 8; do
    for op in read write; do
        took=$(rate "$op" "$programs" "$COUNT") || fail "rate $op says '$took'"
        measure "dom0-$op-by-$programs" $((programs * COUNT * 1000000000 / took)) /s
    done
done

say "one guest, and nobody else"
small one meter
await_hello one
# one_alone NAME LINE: reports how long its requests take, and how many it gets through.
one_alone() {
    local op
    for op in read write; do
        order one trips "$op" "$2" "$COUNT"
        measure_trips "trip-$op$1"
        order one stream "$op" "$2" "$COUNT"
        measure "stream-$op$1" $((COUNT * 1000000000 / $(result))) /s
    done
}
one_alone "" store

if [ "$STORE" = stubdom ]; then
    say "what the store does for it"
    counted order one clock
    cp /tmp/counted /tmp/beside
    for how in trips stream; do
        counted order one "$how" read store "$COUNT"
        measure "notifications-$how" $(($(more notifications_total) * 1000 / COUNT)) /1000
    done
    counted true
    cp /tmp/counted /tmp/beside
    counted sleep 60
    measure wake-ups-idle "$(more wakeups_total)" "in 60 s"
    entry=$(store_console | sed -n 's/^the first reply is out \([0-9]*\) us .*/\1/p')
    measure first-reply "$entry" us
fi

say "the same guest beside an echo"
echo_for one
one_alone -echo echo
patiently xl destroy echo

say "one guest, and more and more others that are only there, with eight watches each"
others=0
# among NUMBER: as many others are there, and one guest measures.
among() {
    while [ "$others" -lt "$1" ]; do
        others=$((others + 1))
        small "other-$others" meter
    done
    await_hello "other-$others"
    for op in read write; do
        order one trips "$op" store "$COUNT"
        measure_trips "trip-$op-among-$1"
    done
}
# at_once NUMBER: as many of them measure with it in the same second.
at_once() {
    local crowd=one how start="order one clock"
    for number in $(seq "$1"); do
        crowd="$crowd other-$number"
    done
    if [ "$STORE" = stubdom ]; then
        # What the order itself costs.
        $start
        counted order_all "$crowd" share read "$(($(result) + 2000000000))" 0
        cp /tmp/counted /tmp/beside
    fi
    for how in share flood; do
        $start
        counted order_all "$crowd" "$how" read "$(($(result) + 2000000000))" 1000000000
        measure_share "$how"
        [ "$STORE" != stubdom ] ||
            measure "notifications-$how" $(($(more notifications_total) * 1000 / $(sum))) /1000
    done
}

: "${FEW:=1}" "${SOME:=20}" "${MANY:=100}"
among "$FEW"
among "$SOME"
at_once "${CROWD:-15}"
among "$MANY"
