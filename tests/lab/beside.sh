# An honest guest that measures, with a hostile one beside it. To be read after remains.sh.
#
# All share one processor, so most of what a hostile guest costs others is the scheduler's doing:
# a guest that only counts costs the honest one just as much processor. To see what is the store's
# doing, the store and the honest guest get so much more weight than the hostile one that Xen lets
# them run at once whenever they can, and the honest guest sleeps for some time, never the same,
# before each conversation. Meanwhile the hostile guest runs as fast as it can and the store works
# for it, so that the honest request meets that work at any point. What remains of the scheduler is
# seen with `burn`, a guest that uses the processor and leaves the store alone.
#
# Time passes with instructions here, two nanoseconds each, so a slow machine changes nothing.

xl sched-credit2 -s -r 100 || fail "the scheduler cannot be told to preempt early"
xl sched-credit2 -d Xenstore -w 65535

expect "xl create honest" xl create -q /etc/xen/guest.cfg 'name="honest"' 'extra="measure"'
HONEST=$(domid honest)
HOME_OF_HONEST=/local/domain/$HONEST
eventually 60 xenstore-exists "$HOME_OF_HONEST/data/hello"
xl sched-credit2 -d honest -w 65535

# measure ROUNDS: has the honest guest make that many rounds; its report is in /tmp/measured.
measure() {
    local watcher
    quietly xenstore-write "$HOME_OF_HONEST/data/measured" ""
    # dom0 waits without asking: for the first event, which comes at once, and the report's.
    timeout 300 xenstore-watch -n 2 "$HOME_OF_HONEST/data/measured" >/dev/null &
    watcher=$!
    sleep 0.3
    quietly xenstore-write "$HOME_OF_HONEST/data/measure" "$1"
    wait "$watcher" || fail "the honest guest has not measured within 300 s"
    xenstore-read "$HOME_OF_HONEST/data/measured" >/tmp/measured
}

# figure KIND median|slowest FILE: prints one, in microseconds.
figure() {
    awk -v kind="$1" -v which="$2" '{
        for (i = 5; i <= NF; i += 3)
            if ($i == kind) printf "%d\n", $(i + (which == "median" ? 1 : 2)) / 1000
    }' "$3"
}

# row NAME: prints the last measurement as a row of a table.
row() {
    local kind line
    line=$(printf '   %-10s' "$1")
    for kind in read write transaction watch; do
        line="$line  $(printf '%-11s %4d..%-5d' "$kind" \
            "$(figure "$kind" median /tmp/measured)" "$(figure "$kind" slowest /tmp/measured)")"
    done
    echo "$line us, median..slowest"
}

ROUNDS=40
say "alone"
measure "$ROUNDS"
row alone
cp /tmp/measured /tmp/alone

# over MORE FILE: prints the first kind that took more than three times as long as the slowest of its
# kind alone, and MORE microseconds, by what is measured in FILE, and how much.
over() {
    local kind most slowest
    for kind in read write transaction watch; do
        most=$((3 * $(figure "$kind" slowest /tmp/alone) + $1))
        slowest=$(figure "$kind" slowest "$2")
        [ "$slowest" -le "$most" ] || {
            echo "$kind took $slowest us, more than $most"
            return
        }
    done
}

# least FILE FILE: prints, as a measurement, the faster of the two slowest of each kind.
least() {
    awk 'NR == 1 { for (i = 5; i <= NF; i += 3) most[$i] = $(i + 2) }
        NR == 2 {
            for (i = 5; i <= NF; i += 3) if (most[$i] < $(i + 2)) $(i + 2) = most[$i]
            print
        }' "$1" "$2"
}

# beside ACT [MORE [LOOK]]: the honest guest measures beside this act: no error, and no conversation
# takes more than three times as long as the slowest of its kind alone, and MORE microseconds.
#
# One trip may be slow because dom0 woke up just then, which is nobody's fault. One that is slow
# because of the store is so again: it fails if it is in each of three measurements.
# `LOOK DOMID` then looks at the hostile guest. In the end that is destroyed in the middle of its
# act, and nothing of it is left.
beside() {
    local id requests said number
    say "$1"
    expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' "extra=\"$1\""
    id=$(domid hostile)
    eventually 60 xenstore-exists "/local/domain/$id/data/hello"
    # What the guests set in each other's way.
    quietly xenstore-chmod "$HOME_OF_HONEST/data/word" "n$HONEST" "r$id"
    if [ -n "${AFTER:-}" ]; then
        eventually 120 printed "$id" "$AFTER"
    fi
    rm -f /tmp/least
    for number in 1 2 3; do
        requests=$(requests)
        measure "$ROUNDS"
        row "${1%%=*}"
        # The honest guest makes nine requests a round.
        echo "   the others made $(($(requests) - requests - 9 * ROUNDS)) requests meanwhile"
        ! crashed hostile || fail "the hostile guest has ended before its time"
        equal "no error" "$ROUNDS rounds 0 errors" cut -d ' ' -f 1-4 /tmp/measured
        [ ! -e /tmp/least ] || least /tmp/least /tmp/measured >/tmp/least.now
        [ -e /tmp/least ] || cp /tmp/measured /tmp/least.now
        mv /tmp/least.now /tmp/least
        said=$(over "${2:-0}" /tmp/least)
        [ -n "$said" ] || break
        echo "   measurement $number: $said"
    done
    [ -z "$said" ] || fail "$said, in each of $number measurements"
    "${3:-true}" "$id"
    expect "xl destroy" xl destroy hostile
    nothing_left hostile "$id"
}

# requests: prints how many requests the store has answered.
requests() {
    store_says memreport
    sed -n 's/.*, \([0-9]*\) requests$/\1/p' /tmp/said
}

remember
beside burn
