# Bad input is named, and a guest that breaks the protocol harms itself alone.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 900
. /lab/lib.sh

# stops NAME TEXT SETTING...: a domain with these settings says that and ends.
stops() {
    local name=$1 text=$2
    shift 2
    expect "xl create $name" xl create -q /etc/xen/stubdom.cfg "name=\"$name\"" "$@"
    id=$(domid "$name")
    eventually 60 crashed "$name"
    expect "$name: says why" printed "$id" "$text"
    expect "$name: goes" xl destroy "$name"
}

say "images that cannot run"
stops little-memory "too few" "memory=2" "maxmem=2"
stops bad-events 'events wants fifo or 2l, not "3l"' 'extra="events=3l"'
stops no-event "event wants a port number, and nothing follows it" 'extra="--event"'

say "a guest that behaves"
expect "xl create" xl create -q /etc/xen/guest.cfg 'name="polite"'
eventually 60 xenstore-exists "/local/domain/$(domid polite)/data/hello"

# introduce DOMID: introduces a domain again with the port that it has, as raw bytes: no command
# does that.
introduce() {
    local home=/local/domain/$1/store
    printf '%s\0%s\0%s\0' "$1" "$(xenstore-read "$home/ring-ref")" \
        "$(xenstore-read "$home/port")" >/tmp/payload
    # INTRODUCE, request 1, no transaction, the length.
    {
        printf '\010\0\0\0\001\0\0\0\0\0\0\0'
        printf "\\$(printf %03o "$(wc -c </tmp/payload)")\\0\\0\\0"
        cat /tmp/payload
    } >/tmp/frame
    (
        exec 6<>/dev/xen/xenbus
        cat /tmp/frame >&6
        timeout 20 dd bs=19 count=1 <&6 >/tmp/answer 2>/dev/null
        timeout 5 dd bs=19 count=1 <&6 >>/tmp/answer 2>/dev/null
        true
    )
    grep -q OK /tmp/answer
}

# offends NAME NUMBER: the guest breaks the protocol, sees this error in its ring, and nobody
# else sees anything of it.
offends() {
    expect "xl create $1" xl create -q /etc/xen/guest.cfg "name=\"$1\"" "extra=\"$1\""
    id=$(domid "$1")
    eventually 60 printed "$id" "guest: ring error"
    expect "$1: told in its ring, and no more answered" \
        printed "$id" "guest: ring error $2, 0 bytes of answer"
    expect "dom0 is served" xenstore-write /test/offence "$1"
    equal "and read" "$1" xenstore-read /test/offence
    expect "it can be introduced again" introduce "$id"
    expect "xl destroy" xl destroy "$1"
    eventually 60 gone "$1" "$id"
}
say "impossible indices"
offends bad-index 2
say "a message longer than any may be"
offends oversize 3

say "the one that behaves is served as ever"
id=$(domid polite)
expect "it obeys xl shutdown" xl shutdown -w polite
eventually 60 gone polite "$id"
