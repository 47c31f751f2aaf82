# Xen's own command line tools find in the stub the Xenstore they know.
# lab: --store stubdom --memory 4 --maxmem 4 --no-linux --timeout 400
# xen: 4.17 4.20
. /lab/lib.sh

# offered BACKEND: the device waits for its other side (XenbusStateInitWait).
offered() {
    [ "$(xenstore-read "$1/state")" = 2 ]
}

say "the host came up"
equal "dom0 has its name" Domain-0 xenstore-read /local/domain/0/name
expect "xl lists domains" xl list
listed Domain-0 || fail "xl list does not show Domain-0"
if [ "$STORE" = stubdom ]; then
    store=$(xenstore-read /tool/xenstored/domid)
    [ "$store" -gt 0 ] || fail "/tool/xenstored/domid is '$store'"
    equal "the store's domain is named" Xenstore xenstore-read "/local/domain/$store/name"
    listed Xenstore || fail "xl list does not show the store's domain"
    [ -n "$PARAM" ] || expect "it uses the better events" printed "$store" "Fifo events"
    case $XEN in
    4.17) version=0x15 ;;
    4.20) version=0x17 ;;
    esac
    expect "it asks Xen after domains as Xen $XEN wants to be asked" \
        printed "$store" "XEN_DOMCTL_getdomaininfo of interface version $version"
    # Xen 4.19 and later give the store's domain a folder of dom0's; a daemon offers it, over nodes
    # and watches that init-xenstore-domain, libxl and it are served with by then.
    [ "$XEN" = 4.17 ] || eventually 60 offered "/local/domain/0/backend/xen_9pfs/$store/0"
fi

say "reading and writing"
expect "a node is written" xenstore-write /test/a/b one
equal "and read" one xenstore-read /test/a/b
equal "the nodes above it came by themselves" "" xenstore-read /test/a
expect "three nodes in one call" xenstore-write /test/x 1 /test/y 2 /test/z ""
equal "directories are listed" "a x y z" sh -c 'xenstore-list /test | sort | xargs'
equal "a tree is shown" '/test/a = "" /test/a/b = "one"' \
    sh -c 'xenstore-ls -f /test | head -n 2 | tr "\n" " " | sed "s/ $//"'
expect "a node that is there exists" xenstore-exists /test/x
refuse "one that is not there does not" "" xenstore-exists /test/nothing
refuse "nor can it be read" "couldn't read path /test/nothing" xenstore-read /test/nothing
refuse "nor listed" "could not list path /test/nothing" xenstore-list /test/nothing
expect "a tree is removed" xenstore-rm /test/a
refuse "with all below it" "couldn't read" xenstore-read /test/a/b
refuse "what has no parent cannot be removed" "could not remove" xenstore-rm /no/such/thing

say "sizes beyond a ring and beyond a message"
long=$(head -c 2000 /dev/zero | tr '\0' x)
expect "a value longer than the ring is written" xenstore-write /test/long "$long"
equal "and read" "$long" xenstore-read /test/long
many=300
# oxenstored 4.17 cannot list a directory that is longer than a message.
[ "$STORE" != ocaml ] || many=60
nodes=
for number in $(seq "$many"); do
    nodes="$nodes /test/many/a-node-with-a-long-name-$number $number"
done
# shellcheck disable=SC2086
expect "$many nodes in one call" xenstore-write $nodes
equal "a long directory is listed" "$many" sh -c 'xenstore-list /test/many | wc -l'
equal "with every value" "$many" xenstore-read "/test/many/a-node-with-a-long-name-$many"

say "permissions"
expect "they are set" xenstore-chmod /test/x n0 r1 b2
equal "and shown" '/test/x = "1"   (n0,r1,b2)' sh -c 'xenstore-ls -fp /test | grep "^/test/x "'
expect "for a whole tree" xenstore-chmod -r /test/many n0 r3
equal "down to each leaf" "(n0,r3)" \
    sh -c "xenstore-ls -fp /test | sed -n 's/.*-$many = .*  //p'"

say "watches"
xenstore-watch -n 4 /test/watched >/tmp/events &
eventually 60 grep -qx /test/watched /tmp/events
xenstore-write /test/watched/deep/down 1
xenstore-write /test/elsewhere 1
xenstore-write /test/watched 2
xenstore-rm /test/watched
wait
equal "a watch hears of everything at and below its node, and of nothing else" \
    "/test/watched /test/watched/deep/down /test/watched /test/watched" xargs -a /tmp/events

expect "all is cleared away" xenstore-rm /test
refuse "and gone" "couldn't read" xenstore-read /test/x

if [ "$STORE" = stubdom ]; then
    say "administration"
    expect "the accounts are right" xenstore-control check
    expect "limits are listed" sh -c "xenstore-control quota | grep -q '^watches  *:      128 W'"
    equal "and changed" OK xenstore-control quota set watches 200
    expect "as is seen" sh -c "xenstore-control quota | grep -q '^watches  *:      200 W'"
    xenstore-control domains
    expect "dom0 is listed with what it has" sh -c \
        "xenstore-control domains | grep -q '^0    : connected nodes [1-9][0-9]* watches [1-9]'"
    expect "the help names the commands" sh -c "xenstore-control help | grep -q '^domains '"

    say "the store's console"
    eventually 60 grep -q serving /var/log/xen/console/guest-Xenstore.log
fi
