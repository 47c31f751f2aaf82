# The store grows to its maximum, then refuses to grow more, and goes on with everything else.
# lab: --store stubdom --memory 4 --maxmem 6 --no-linux --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

say "filling"
fill_memory
# 4 MiB, less the image and the reserve, hold some 1,200 of these.
[ "$filled" -gt 75 ] || fail "the store did not grow beyond the memory it began with"

say "full"
# Giving up the last twenty made room for a few.
more=0
while timeout 60 xenstore-write "/fill/more/$more" "$LARGE" 2>/tmp/refusal; do
    more=$((more + 1))
    [ "$more" -lt 200 ] || fail "200 more nodes fit"
done
say "$more more, then: $(cat /tmp/refusal)"
equal "what is there is read" 1900 sh -c 'xenstore-read /fill/1/7 | tr -d "\n" | wc -c'
equal "and listed" 20 sh -c 'xenstore-list /fill/1 | wc -l'
expect "xl lists domains" xl list
expect "watches work" xenstore-watch -n 1 /fill/1

say "room again"
expect "a tree is removed" xenstore-rm /fill
expect "then nodes are written" xenstore-write /more "$LARGE"
expect "and a guest is created" xl create -q /etc/xen/guest.cfg
id=$(domid guest)
eventually 60 xenstore-exists "/local/domain/$id/data/hello"
expect "the accounts are right" xenstore-control check
expect "it goes" xl destroy guest
eventually 60 gone guest "$id"
