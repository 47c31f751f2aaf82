# Guests that measure as they are ordered. To be read after lib.sh.

# measure NAME VALUE UNIT: reports a figure.
measure() {
    echo "measure $*"
}

# small NAME WORD: creates a small guest of that kind, and leaves no xl behind to look after it.
small() {
    patiently xl create -q -e /etc/xen/guest.cfg "name=\"$1\"" "extra=\"$2\"" ||
        fail "no guest $1"
    domid "$1" >"/tmp/domid-$1"
}

# await_hello NAME...: waits until these guests have said hello.
await_hello() {
    local guest until
    until=$(($(date +%s) + 60))
    for guest in "$@"; do
        until xenstore-exists "$(data_of "$guest")/hello"; do
            [ "$(date +%s)" -lt "$until" ] || fail "$guest has not said hello within 60 s"
            sleep 0.2
        done
    done
}

# data_of NAME: prints where the guest's own nodes are.
data_of() {
    read -r domid <"/tmp/domid-$1"
    echo "/local/domain/$domid/data"
}

# order NAME WORDS...: has the guest measure; what it answers is the result.
order() {
    local data watcher
    data=$(data_of "$1")
    shift
    xenstore-write "$data/result" ""
    # dom0 waits without asking: for the first event, which comes at once, and the result's.
    timeout 300 xenstore-watch -n 2 "$data/result" >/dev/null &
    watcher=$!
    sleep 0.3
    xenstore-write "$data/order" "$*"
    wait "$watcher" || fail "no answer to '$*' within 300 s"
    xenstore-read "$data/result" >/tmp/result
    grep -q '^[0-9 ]*$' /tmp/result || fail "'$*' was answered with '$(result)'"
}

# result: prints what the last order was answered with.
result() {
    cat /tmp/result
}

# measure_trips NAME: reports the last order's times.
measure_trips() {
    local least median most
    read -r least median most </tmp/result
    measure "$1-min" "$least" ns
    measure "$1-median" "$median" ns
    measure "$1-p99" "$most" ns
}

# echo_for NAME: gives the guest a ring with nothing behind it but an echo.
echo_for() {
    local echo
    small echo echo
    await_hello echo
    echo=$(cat /tmp/domid-echo)
    order "$1" echo "$echo"
    xenstore-write "/local/domain/$echo/data/serve" "$(cat "/tmp/domid-$1") $(result)"
}

# order_all "NAME..." WORDS...: has all of these guests measure; what they answer is the result, a
# line each.
order_all() {
    local guests=$1 results="" emptied="" orders="" data watcher guest
    shift
    for guest in $guests; do
        data=$(data_of "$guest")
        results="$results $data/result"
        emptied="$emptied $data/result ''"
        orders="$orders $data/order '$*'"
    done
    eval "xenstore-write $emptied"
    # shellcheck disable=SC2086
    timeout 300 xenstore-watch -n $((2 * $(echo $results | wc -w))) $results >/dev/null &
    watcher=$!
    sleep 0.3
    eval "xenstore-write $orders"
    wait "$watcher" || fail "no answer to '$*' of all within 300 s"
    # shellcheck disable=SC2086
    xenstore-read $results >/tmp/result
    if grep -v '^[0-9]*$' /tmp/result; then
        fail "that was answered to '$*'"
    fi
}

# sum: prints what the last results come to.
sum() {
    awk '{ sum += $1 } END { print sum }' /tmp/result
}

# measure_share NAME: reports how much the guests of the last order got done in a second, and how
# much the last of them did of what the first of them did, in per cent.
measure_share() {
    measure "$1" "$(sum)" /s
    measure "$1-last-of-first" "$(sort -n /tmp/result |
        awk 'NR == 1 { least = $1 } { most = $1 } END { print int(least * 100 / most) }')" %
}

# counted COMMAND...: runs it; what the store counted meanwhile is in /tmp/counted.
counted() {
    [ "$STORE" != stubdom ] || xenstore-control counters >/tmp/before
    "$@"
    [ "$STORE" = stubdom ] || return 0
    xenstore-control counters >/tmp/after
    awk -F': ' '/^[a-z_]*: [0-9.]*$/ { if (NR == FNR) before[$1] = $2; else print $1, $2 - before[$1] }' \
        /tmp/before /tmp/after >/tmp/counted
}

# more COUNTER: prints how much more of it was counted the last time than in /tmp/beside.
more() {
    awk -v name="$1" '$1 == name { if (NR == FNR) beside = $2; else print $2 - beside }' \
        /tmp/beside /tmp/counted
}
