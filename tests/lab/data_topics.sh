# A message goes to eight guests, each of which has it whole and once.
# lab: --store stubdom --memory 8 --maxmem 16 --no-linux --timeout 900
. /lab/lib.sh

expect "xl create stubdom" xl create -q /etc/xen/stubdom.cfg
STUB=$(domid stubdom)
DATA=/local/domain/$STUB/data
eventually 60 xenstore-exists "$DATA/uptime"
expect "announce" datafront announce stubdom
xenstore-write "$DATA/policy/all" "allow dom0 publish news/#
allow * subscribe news/#"

GUESTS=$(seq 1 8)
for number in $GUESTS; do
    expect "xl create h$number" xl create -q /etc/xen/guest.cfg "name=\"h$number\"" \
        "extra=\"hear=$STUB\""
done
for number in $GUESTS; do
    eventually 60 xenstore-exists "/local/domain/$(domid "h$number")/data/hello"
done

# all_heard TEXT: every guest says that of what it has heard.
all_heard() {
    local number
    for number in $GUESTS; do
        [ "$(xenstore-read "/local/domain/$(domid "h$number")/data/heard")" = "$1" ] || return 1
    done
}

say "ten that fit into every ring, then ten that are four times as large as a ring"
for number in $(seq 10); do
    expect "message $number" datafront pub "news/small/$number" "twenty-five letters here!"
done
eventually 30 all_heard "10 messages, 250 bytes"
head -c 65536 /dev/zero | tr '\0' m >/tmp/large
for number in $(seq 10); do
    expect "large message $number" sh -c "datafront pub news/large </tmp/large"
done
eventually 30 all_heard "20 messages, 655610 bytes"

say "one of them dies, the others hear on"
ID=$(domid h8)
expect "xl destroy" xl destroy h8
eventually 60 gone h8 "$ID"
GUESTS=$(seq 1 7)
expect "another message" datafront pub "news/small" "twenty-five letters here!"
eventually 30 all_heard "21 messages, 655635 bytes"
! crashed stubdom || fail "the data role has crashed"
