# What a guest leaves behind in the store and in Xen. To be read after lib.sh.

# quietly COMMAND...: it must succeed; only if it does not is anything said.
quietly() {
    local output
    output=$(patiently "$@" 2>&1) || fail "\`$*\` failed: $output"
}

# store_says COMMAND...: runs commands of xenstore-control; what the store wrote on its console
# meanwhile is in /tmp/said.
store_says() {
    local mark command
    mark=$(($(cat /tmp/mark 2>/dev/null || echo 0) + 1))
    echo "$mark" >/tmp/mark
    quietly xenstore-control print "from $mark"
    for command in "$@"; do
        quietly xenstore-control "$command"
    done
    quietly xenstore-control print "to $mark"
    quietly eventually 60 marked "$mark"
    store_console | sed -n "/^control: from $mark\$/,/^control: to $mark\$/p" |
        sed '1d;$d' >/tmp/said
}

marked() {
    store_console | grep -qx "control: to $1"
}

# grants_mapped: prints how many pages of others the store has mapped, as Xen sees it.
grants_mapped() {
    xl debug-keys g
    sleep 0.2
    # (XEN) [reference] domain frame pin: the entries in use, with the domain that uses them.
    xl dmesg | tail -n 200 | sed 's/^(XEN) //' |
        awk -v store="$STORE_ID" '/key .g. pressed/ { count = 0 }
            /^\[0x/ && $2 == store && $4 !~ /^0x0*$/ { count++ }
            END { print count }'
}

# holdings: prints all that the store and Xen hold for guests, but for the store's memory and the
# permission lists, which it frees some time later; and what the store's check complains of.
holdings() {
    store_says check memreport
    # "0.1.0: 171 nodes, 8 permission lists, ..., 4,000 requests"
    sed 's/^[^:]*: //; s/, [0-9]* permission lists//; s/, [0-9]* requests$//' /tmp/said
    echo "$(grants_mapped) grants, $(lsevtchn "$STORE_ID" | wc -l) ports"
}

# remember: notes what is held now, to be compared with what is held after guests have gone.
remember() {
    holdings >/tmp/held
    [ "$(wc -l </tmp/held)" -eq 2 ] || fail "what is held cannot be told: $(cat /tmp/held)"
    sed 's/^/   held: /' /tmp/held
}

# nothing_left NAME DOMID: the domain is gone, the store's accounts are right, and nothing of the
# domain is left anywhere.
nothing_left() {
    local heap
    quietly eventually 60 gone "$1" "$2"
    equal "nothing names it" 0 sh -c "xenstore-ls -fp | grep -c '/$2\([/ ]\)\|[nrwb]$2[,)]'"
    eventually 60 as_remembered
    quietly eventually 60 gone_is_told "$2"
    heap=$(store_heap "$2")
    : "${heap_first:=$heap}"
    echo "ok: $heap bytes in use, $((heap - heap_first)) more than after the first guest"
    [ "$((heap - heap_first))" -le "$HEAP_LEFT" ] || fail "more than $HEAP_LEFT bytes are left"
}

gone_is_told() {
    [ -n "$(store_heap "$1")" ]
}

# as_remembered: whether as much is held as when that was noted.
as_remembered() {
    holdings >/tmp/holds
    diff /tmp/held /tmp/holds
}

STORE_ID=$(xenstore-read /tool/xenstored/domid)
# By how many bytes the store's memory may differ, after however many guests, from what it was after
# the first: tables that keep their size, permission lists that are freed later, and above all the
# buffers for replies, of which the store keeps up to sixteen of 8 KiB for the next who needs one.
: "${HEAP_LEFT:=65536}"
