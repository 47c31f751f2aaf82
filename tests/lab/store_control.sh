# Debian's xenstore-control finds in the stub the commands that it knows.
# lab: --store stubdom --memory 8 --timeout 600
# xen: 4.17 4.20
. /lab/lib.sh
. /lab/remains.sh

# answers WANTED COMMAND...: xenstore-control prints exactly that, and succeeds.
answers() {
    local wanted=$1
    shift
    ends 0 "$wanted" "$@"
}

# ends STATUS WANTED COMMAND...: xenstore-control prints exactly that, empty lines at the end apart,
# and ends so.
ends() {
    local status=$1 wanted=$2 found ended=0
    shift 2
    found=$(timeout 60 xenstore-control "$@" 2>&1) || ended=$?
    [ "$found" = "$wanted" ] || fail "xenstore-control $* printed '$found', not '$wanted'"
    [ "$ended" -eq "$status" ] || fail "xenstore-control $* ended with status $ended, not $status"
    echo "ok: $*"
}

say "check, print, memreport"
answers OK check
answers OK print "hello there"
eventually 30 grep -q '^control: hello there' /var/log/xen/console/guest-Xenstore.log
answers OK memreport
store_says memreport
expect "memreport counts on the console" grep -q \
    '^[0-9.]*: [0-9]* nodes, [0-9]* permission lists, [0-9]* watches, [0-9]* transactions, [0-9]* connections, [0-9]* domains, [0-9]* requests$' \
    /tmp/said

say "counters"
counted() {
    xenstore-control counters | sed -n "s/^$1: \(.*\)\$/\1/p"
}
for counter in turns_total wakeups_total events_total notifications_total store_sent_bytes_total; do
    first=$(counted "$counter")
    later=$(counted "$counter")
    [ "$later" -gt "$first" ] || fail "the counter of $counter went from '$first' to '$later'"
done

say "log"
off='Log switch settings:
obj     : off
io      : off
wrl     : off
acc     : off
tdb     : off'
answers "$off" log
answers OK log +io
answers "$(echo "$off" | sed '/^io/s/off/on/')" log
answers OK log -io
answers "$off" log

say "quota"
limits='Quota settings:
nodes            :     1000 Nodes per domain
watches          :      128 Watches per domain
outstanding      :       20 Outstanding requests per domain
memory           :  2621440 Total Xenstore memory per domain
transactions     :       10 Active transactions per domain
transaction-nodes:     1024 Max. number of accessed nodes per transaction
node-permissions :        5 Max. number of permissions per node
path-max         :     2048 Max. length of a node path
node-size        :     2048 Max. size of a node'
answers "$limits" quota
answers OK quota set nodes 50
answers "$(echo "$limits" | sed '/^nodes/s/1000/  50/')" quota
answers OK quota set nodes 1000
expect "quota 0 counts" sh -c "xenstore-control quota 0 | grep -q '^nodes            : *[1-9]'"
ends 3 "Error 2 when trying to execute command." quota 9999

say "help, and what there is not"
commands=$(
    while read -r name arguments; do
        printf '%-15s %s\n' "$name" "$arguments"
    done <<'END'
check
counters
domains [<first domid>]
log [on|off|+<switch>|-<switch>]
live-update [-c <cmdline>] [-F] [-t <timeout>] [-v <version>] <file>
memreport
print <string>
quota [set <name> <val>|<domid>|max [-r]|refused <domid>]
quota-soft [set <name> <val>]
help
END
)
answers "$commands" help
unsupported="Command not supported. Valid commands are:
$commands"
ends 3 "$unsupported" nonsense
ends 3 "$unsupported" check twice
ends 3 "$unsupported" logfile /tmp/log
ends 3 "Starting live update failed:
Live update is not supported." live-update /boot/stubdom
answers OK check
