# Applications of dom0 and of stock Linux guests exchange blocks, messages and streams.
# lab: --store stubdom --memory 8 --maxmem 16 --ram 2560 --timeout 1500
. /lab/lib.sh

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
DATA=/local/domain/$STUB/data
eventually 60 xenstore-exists "$DATA/uptime"
expect "dom0 tells all which domain has the channels" datafront announce stubdom
equal "in a node that all can read" "$STUB" xenstore-read /tool/datafront/backend

creations=
for guest in g1 g2 g3; do
    xl create -q /etc/xen/linux.cfg "name=\"$guest\"" &
    creations="$creations $!"
done
for creation in $creations; do
    wait "$creation" || fail "xl create ended with status $?"
done
ready 400 g1 g2 g3
G1=$(domid g1)
G2=$(domid g2)
G3=$(domid g3)

# status WANTED COMMAND...: the command ends with that status; what it printed is in /tmp/said.
status() {
    local wanted=$1 found=0
    shift
    patiently "$@" >/tmp/said 2>&1 || found=$?
    [ "$found" -eq "$wanted" ] || {
        cat /tmp/said
        fail "\`$*\` ended with status $found, not $wanted"
    }
    echo "ok: status $wanted of: $*"
}

# said TEXT: it printed that.
said() {
    grep -qF -e "$1" /tmp/said || {
        cat /tmp/said
        fail "it did not say '$1'"
    }
    echo "ok: it said '$1'"
}

# background GUEST FILE COMMAND: a guest runs that beside, with its output in a file. What a guest
# is to run cannot have single quotes: xenstore-write takes the backslashes that they would want.
background() {
    in_guest "$1" sh -c "($3) >$2 2>$2.err </dev/null &" || fail "$1 cannot run: $3"
}

# serves GUEST NAME OPTION: a guest serves a name, and the broker knows.
serves() {
    background "$1" "/tmp/$2" "datafront serve $2 $3"
    sleep 1
    in_guest "$1" sh -c "pidof datafront >/dev/null" || {
        in_guest "$1" cat "/tmp/$2.err"
        fail "$1 does not serve $2"
    }
}

say "without a policy nobody gets a channel"
status 11 datafront ping
said "refuses the channel: no rule of the policy allows this domain to push, "
status 11 datafront --backend 99 ping
said "domain 99 takes no requests for channels"
refuse "nothing is written for a domain that is not" "domain 99" datafront announce 99
equal "dom0 wrote nothing there" "" sh -c "xenstore-list /local/domain | grep -x 99"
xenstore-write "$DATA/policy/lab" "# who may do what
allow dom0 push *
allow dom0 publish #
allow dom0 echo
allow $G1 serve *
allow $G1 subscribe weather/#
allow $G1 stream tape
allow $G2 push jobs
allow $G2 subscribe weather/+/wind
allow $G2 stream tape"
eventually 20 datafront ping --count 1

say "blocks from dom0 to a guest, and its flag back"
# An exit status of 3 is the flag 3, which datafront's own status tells as 64 + 3.
serves g1 jobs '--exec "md5sum; exit 3"'
yes "a line of a block" | head -c 65536 >/tmp/64K
head -c 64 /tmp/64K >/tmp/64
sixteen() {
    for _ in $(seq 16); do cat "$1"; done
}
sixteen /tmp/64K >/tmp/1M
sixteen /tmp/1M >/tmp/16M
for _ in 1 2 3 4; do cat /tmp/16M; done >/tmp/64M
rm /tmp/16M
for block in /tmp/64 /tmp/64K /tmp/64M; do
    status 67 datafront push jobs "$block"
    said "$(md5sum <"$block")"
done
status 67 sh -c 'datafront push jobs </dev/null'
said "$(printf '' | md5sum)"

say "from guest to guest"
in_guest g2 sh -c 'head -c 100000 /usr/bin/datafront >/tmp/block'
equal "g1 answers g2" "$(head -c 100000 /usr/bin/datafront | md5sum)" \
    in_guest g2 sh -c "datafront push $G1/jobs /tmp/block 2>/dev/null; [ \$? -eq 67 ]"

say "what is not allowed is told so"
status 7 in_guest g2 datafront push mail /tmp/block
said "the policy does not allow it"
status 5 datafront push nobody /tmp/said
status 11 in_guest g3 datafront push jobs /init
said "domain $STUB refuses the channel: "
refuse "another guest reads nothing of a channel" "Permission denied" \
    in_guest g3 xenstore-ls "$DATA/vchan/$G1"
refuse "nor who asks for one" "Permission denied" in_guest g3 xenstore-ls "$DATA/ask"
refuse "nor changes the policy" "could not write" \
    in_guest g3 xenstore-write "$DATA/policy/lab" "allow * push *"

say "a receiver that is killed in the middle of a block"
serves g1 slow '--exec "head -c 1000000 >/dev/null; sleep 1000"'
push_big() {
    local found=0
    datafront push slow /tmp/64M >/tmp/pushed 2>&1 || found=$?
    echo "$found" >/tmp/pushed.status
}
pushed() {
    [ -s /tmp/pushed.status ]
}
: >/tmp/pushed.status
push_big &
sleep 2
! pushed || fail "the push ended before its receiver"
in_guest g1 sh -c 'kill -9 $(pidof datafront)'
sleep 1
pushed || fail "a second after the receiver was killed, the sender does not know"
equal "the sender knows that the receiver went" 4 cat /tmp/pushed.status

say "a receiver whose domain is destroyed"
xenstore-write "$DATA/policy/more" "allow $G3 serve slow"
serves g3 slow '--exec "head -c 1000000 >/dev/null; sleep 1000"'
: >/tmp/pushed.status
push_big &
sleep 2
! pushed || fail "the push ended before its receiver"
expect "xl destroy g3" xl destroy g3
sleep 1
pushed || fail "a second after the receiver's domain was destroyed, the sender does not know"
equal "the sender knows that the receiver went" 4 cat /tmp/pushed.status
eventually 20 gone g3 "$G3"
equal "nothing is left of its channels" 0 sh -c "xenstore-ls -f $DATA/vchan | grep -c '/$G3/'"

say "messages to several"
background g1 /tmp/all 'datafront sub -v --count 3 "weather/#"'
background g2 /tmp/wind 'datafront sub -v --count 1 "weather/+/wind"'
sleep 2
for topic in weather/north weather/north/wind weather; do
    expect "dom0 publishes $topic" datafront pub "$topic" "of $topic"
done
equal "g1 has them all, in their order" "weather/north of weather/north
weather/north/wind of weather/north/wind
weather of weather" in_guest g1 sh -c 'sleep 1; cat /tmp/all'
equal "g2 has the one that it wanted" "weather/north/wind of weather/north/wind" \
    in_guest g2 cat /tmp/wind
expect "a message is kept" datafront pub --retain weather/south/wind "calm"
equal "for who comes late" "weather/south/wind calm" \
    in_guest g2 datafront sub -v --count 1 'weather/+/wind'

say "a stream between two guests"
background g1 /tmp/copy "datafront stream tape --receive"
expect "g2 sends" in_guest g2 sh -c 'datafront stream tape --send </usr/bin/datafront'
wanted=$(sha256sum </usr/bin/datafront)
equal "g1 receives the same" "$wanted" in_guest g1 sh -c 'sleep 1; sha256sum </tmp/copy'

say "an echo"
equal "all of it comes back, and that is its end" "$(md5sum </tmp/1M)" \
    sh -c "datafront echo </tmp/1M | md5sum"
status 0 sh -c "datafront echo </dev/null"

background g1 /tmp/none "datafront stream tape --receive"
sleep 1
in_guest g1 sh -c 'kill -9 $(pidof datafront)'
no_requests() {
    [ -z "$(xenstore-list "$DATA/ask")" ]
}
eventually 10 no_requests

say "the domain of the channels restarts"
serves g1 jobs '--exec "md5sum; exit 3"'
expect "xl destroy stubdom" xl destroy stubdom
expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
NEW=$(domid stubdom)
eventually 60 xenstore-exists "/local/domain/$NEW/data/uptime"
xenstore-write "/local/domain/$NEW/data/policy/lab" "allow dom0 push *
allow $G1 serve *"
expect "dom0 tells all which domain has the channels now" datafront announce stubdom
answers() {
    echo again >/tmp/small
    status 67 datafront push jobs /tmp/small
}
tries=30
until (answers) >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "g1's service is not there again"
    sleep 1
done
echo "ok: g1 serves as before"
