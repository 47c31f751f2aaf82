# A guest that misuses its channels costs an honest pair nothing but its share of the processor.
# lab: --store stubdom --memory 8 --maxmem 16 --no-linux --timeout 1800
. /lab/lib.sh

# Time passes with instructions, and all share one processor: whom it is about may run at once.
xl sched-credit2 -s -r 100 || fail "the scheduler cannot be told to preempt early"
xl sched-credit2 -d Xenstore -w 65535

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
HOME_OF_STUB=/local/domain/$STUB/data
xl sched-credit2 -d stubdom -w 65535
eventually 60 xenstore-exists "$HOME_OF_STUB/uptime"
xenstore-write "$HOME_OF_STUB/policy/all" "allow * serve *
allow * push *
limit * channels 4"

for act in take push; do
    expect "xl create $act" xl create -q /etc/xen/guest.cfg "name=\"$act\"" \
        "extra=\"$act-blocks=$STUB\""
    xl sched-credit2 -d "$act" -w 65535
    eventually 60 xenstore-exists "/local/domain/$(domid "$act")/data/hello"
done
PUSHER=/local/domain/$(domid push)/data

# measure COUNT: has so many blocks of each size pushed; the report is in /tmp/measured.
measure() {
    local watcher
    xenstore-write "$PUSHER/measured" ""
    timeout 300 xenstore-watch -n 2 "$PUSHER/measured" >/dev/null &
    watcher=$!
    sleep 0.3
    xenstore-write "$PUSHER/measure" "$1"
    wait "$watcher" || fail "the honest pair has not measured within 300 s"
    xenstore-read "$PUSHER/measured" >/tmp/measured
}

# row NAME: prints the last measurement as a row of a table, in microseconds.
row() {
    awk -v name="$1" '{
        printf "   %-16s small %d..%d  large %d..%d us, median..slowest\n",
            name, $4 / 1000, $5 / 1000, $7 / 1000, $8 / 1000
    }' /tmp/measured
}

# over FILE: prints what took too long by that measurement: a small block more than three times as
# long as the slowest alone and the 100 us for which Xen lets another run once it does, or large ones
# more than a tenth longer than alone.
over() {
    awk 'NR == 1 { slowest = $5; median = $7 }
        NR == 2 && $5 > 3 * slowest + 100000 { print "a small block took", $5 / 1000, "us, alone", slowest / 1000 }
        NR == 2 && $7 > 1.1 * median { print "large blocks took", $7 / 1000, "us, alone", median / 1000 }
    ' /tmp/alone "$1"
}

# least FILE FILE: prints, as a measurement, the faster of each two figures.
least() {
    awk 'NR == 1 { split($0, one) }
        NR == 2 { for (i = 4; i <= 8; i++) if (i != 6 && one[i] < $i) $i = one[i]; print }' "$1" "$2"
}

PUSHES=40
say "alone"
measure "$PUSHES"
measure "$PUSHES"
row alone
cp /tmp/measured /tmp/alone

# beside ACT [LOOK]: the honest pair measures beside this act. What is slow because of the stub is so
# in each of three measurements; dom0 may wake up in one. `LOOK DOMID` then looks at the guest.
beside() {
    local id said number
    say "$1"
    expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' "extra=\"$1=$STUB\""
    id=$(domid hostile)
    eventually 60 xenstore-exists "/local/domain/$id/data/hello"
    sleep 1
    rm -f /tmp/least
    for number in 1 2 3; do
        measure "$PUSHES"
        row "$1"
        ! crashed hostile || fail "the hostile guest has ended before its time"
        if [ -e /tmp/least ]; then
            least /tmp/least /tmp/measured >/tmp/least.now
            mv /tmp/least.now /tmp/least
        else
            cp /tmp/measured /tmp/least
        fi
        said=$(over /tmp/least)
        [ -n "$said" ] || break
    done
    [ -z "$said" ] || fail "$said, in each of $number measurements"
    "${2:-true}" "$id"
    expect "xl destroy" xl destroy hostile
    eventually 60 gone hostile "$id"
    eventually 20 forgotten "$id"
}

# forgotten DOMID: nothing of the domain's channels is left in the store.
forgotten() {
    ! xenstore-exists "$HOME_OF_STUB/vchan/$1" &&
        [ "$(xenstore-list "$HOME_OF_STUB/ask" | wc -l)" -eq 2 ]
}

# ended_often DOMID: the stub had enough of the guest's channels, and gave it others.
ended_often() {
    eventually 60 printed "$1" "guest: ten channels were ended"
}

beside burn
beside channel-flip ended_often
beside channel-halves
beside channel-deaf
beside channel-storm
beside channel-again
! crashed stubdom || fail "the data role has crashed"
