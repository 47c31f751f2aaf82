# As many guests as there is memory for talk at once, come and go in a storm, and leave nothing.
# lab: --store stubdom --memory 8 --maxmem 32 --no-linux --ram 2048 --timeout 1800
. /lab/lib.sh
. /lab/remains.sh
. /lab/meter.sh

# How many there are; `cargo xtask bench scale` wants more of them, in a larger machine.
: "${GUESTS:=16}"
# What each does at once with the others, in nanoseconds.
: "${TALK:=100000000}"

# figures WHEN: prints what the store holds and has done.
figures() {
    holdings | sed "s/^/   $1: /"
    xenstore-control counters | sed "s/^/   $1: /"
    xl list | awk -v when="$1" '$1 == "Xenstore" { print "   " when ": " $3 " MiB of memory" }'
}

# connected: prints how many guests are.
connected() {
    local from="domains"
    while [ -n "$from" ]; do
        # shellcheck disable=SC2086
        xenstore-control $from >/tmp/part
        from=$(sed -n 's/^more: //p' /tmp/part)
        grep '^[1-9][0-9]* *: connected' /tmp/part
    done | wc -l
}

say "one comes and goes first, so that every table has its size"
small g0 meter
await_hello g0
first=$(cat /tmp/domid-g0)
xl destroy g0
quietly eventually 60 gone_is_told "$first"
quietly eventually 60 gone g0 "$first"
# shellcheck disable=SC2034
heap_first=$(store_heap "$first")
remember
figures before

say "$GUESTS guests come"
began=$(date +%s)
all=
for number in $(seq "$GUESTS"); do
    small "g$number" meter
    all="$all g$number"
done
# shellcheck disable=SC2086
await_hello $all
measure scale-create $((($(date +%s) - began) * 1000 / GUESTS)) "ms a guest"
equal "all are connected" "$GUESTS" connected

say "all talk at once"
order g1 clock
order_all "$all" share read "$(($(result) + 3000000000 + GUESTS * 20000000))" "$TALK"
[ "$(sort -n /tmp/result | head -n 1)" -gt 0 ] || fail "somebody was never answered"
measure scale-talk $(($(sum) * 1000000000 / TALK)) /s
figures peak
expect "the accounts are right" xenstore-control check

say "every second goes and another comes, while the rest talk on"
order g1 clock
start=$(($(result) + 1000000000))
stay=
for number in $(seq "$GUESTS"); do
    [ $((number % 2)) -eq 0 ] || stay="$stay g$number"
done
storm() {
    local number
    for number in $(seq 2 2 "$GUESTS"); do
        xl destroy "g$number" && small "g$number" meter || return 1
    done
}
storm >/tmp/storm 2>&1 &
storm=$!
order_all "$stay" share read "$start" "$((TALK * 5))"
[ "$(sort -n /tmp/result | head -n 1)" -gt 0 ] || fail "somebody was never answered in the storm"
wait "$storm" || fail "the storm ended early: $(cat /tmp/storm)"
expect "the accounts are right" xenstore-control check

say "all go, as fast as they can be told to"
last=$(cat "/tmp/domid-g$GUESTS")
for guest in $all; do
    xl destroy "$guest" || fail "no end of $guest"
done
for guest in $all; do
    ! listed "$guest" || fail "$guest is still there"
done
HEAP_LEFT=$((65536 + 2048 * GUESTS)) nothing_left "g$GUESTS" "$last"
figures after
