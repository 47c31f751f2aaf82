# A guest that breaks the ring's rules is told so and no more, and leaves nothing behind.
# lab: --store stubdom --memory 8 --maxmem 16 --no-linux --timeout 900
. /lab/lib.sh
# No act here has the store keep large buffers.
HEAP_LEFT=4096
. /lab/remains.sh

say "a guest that behaves"
expect "xl create" xl create -q /etc/xen/guest.cfg 'name="polite"'
eventually 60 xenstore-exists "/local/domain/$(domid polite)/data/hello"
remember

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

# offends ACT NUMBER [BYTES]: the guest breaks the protocol, sees this error in its ring and so
# many bytes of answer, and nobody else sees anything of it.
offends() {
    say "$1"
    expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' "extra=\"$1\""
    id=$(domid hostile)
    eventually 60 printed "$id" "guest: ring error"
    expect "$1: told in its ring, and no more answered" \
        printed "$id" "guest: ring error $2, ${3:-0} bytes of answer"
    expect "dom0 is served" xenstore-write "/local/domain/$id/data/offence" "$1"
    equal "and read" "$1" xenstore-read "/local/domain/$id/data/offence"
    if [ "$2" -ne 0 ] && [ -z "$introduced" ]; then
        expect "it can be introduced again" introduce "$id"
        introduced=yes
    fi
    expect "xl destroy" xl destroy hostile
    nothing_left hostile "$id"
}

introduced=
offends bad-index=2000 2
# One more than fits, one less than was taken.
offends bad-index=1025 2
offends bad-index=4294967295 2
offends bad-reply-index=1 2
offends oversize=4097 3
introduced=
offends oversize=4294967295 3
offends garbage 3
offends half=5 0
offends half=16 0
offends half=150 0
offends unbind 0

say "begin-anew"
expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' 'extra="begin-anew"'
id=$(domid hostile)
eventually 60 printed "$id" "guest: anew:"
# The header and READ's reply to what was just written; no event of the old watch before them.
expect "a connection that begins anew is empty" \
    printed "$id" "guest: anew: indices [0, 0, 0, 0], transaction 1, answers 11 2"
expect "xl destroy" xl destroy hostile
nothing_left hostile "$id"

say "the one that behaves is served as ever"
id=$(domid polite)
expect "it obeys xl shutdown" xl shutdown -w polite
eventually 60 gone polite "$id"
