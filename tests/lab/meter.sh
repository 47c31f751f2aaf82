# Guests that measure as they are ordered. To be read after lib.sh.

# measure NAME VALUE UNIT: reports a figure.
measure() {
    echo "measure $*"
}

# meter NAME: creates a guest that measures.
meter() {
    patiently xl create -q -e /etc/xen/guest.cfg "name=\"$1\"" 'extra="meter"' || fail "no guest $1"
    await_hello "$1"
}

# await_hello NAME: waits until the guest has said hello.
await_hello() {
    local until
    until=$(($(date +%s) + 60))
    until xenstore-exists "$(data_of "$1")/hello"; do
        [ "$(date +%s)" -lt "$until" ] || fail "$1 has not said hello within 60 s"
        sleep 0.2
    done
}

# data_of NAME: prints where the guest's own nodes are.
data_of() {
    echo "/local/domain/$(domid "$1")/data"
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
    patiently xl create -q -e /etc/xen/guest.cfg 'name="echo"' 'extra="echo"' || fail "no echo"
    await_hello echo
    echo=$(domid echo)
    order "$1" echo "$echo"
    xenstore-write "/local/domain/$echo/data/serve" "$(domid "$1") $(result)"
}
