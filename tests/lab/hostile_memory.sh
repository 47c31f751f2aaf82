# At the end of the store's memory a guest that hears of everything and reads nothing harms nobody.
# lab: --store stubdom --memory 4 --maxmem 6 --timeout 1200
. /lab/lib.sh
. /lab/remains.sh

# The first guest ever leaves directories of xl's.
expect "xl create" xl create -q /etc/xen/guest.cfg 'name="polite"'
eventually 60 xenstore-exists "/local/domain/$(domid polite)/data/hello"
remember

say "128 watches with tokens of 1,500 bytes, and a guest that reads no event"
expect "xl create" xl create -q /etc/xen/guest.cfg 'name="hostile"' 'extra="deaf=/fill"'
id=$(domid hostile)
eventually 120 printed "$id" "guest: hears no more"
expect "it may read" xenstore-write /fill ""
expect "all that follows" xenstore-chmod /fill n0 "r$id"

say "dom0 fills the memory, and each node is told to 128 watches"
fill_memory
[ "$filled" -gt 40 ] || fail "the guest keeps dom0 from the memory"
xenstore-control domains

say "full"
for number in $(seq 20); do
    expect "node $number of $((filled * 20)) is removed" xenstore-rm "/fill/1/$number"
    # Until it is full again.
    xenstore-write "/fill/more/$number" "$LARGE" "/fill/still/$number" "$LARGE" 2>/dev/null || true
done
equal "what is there is read" 1900 sh -c 'xenstore-read /fill/2/20 | tr -d "\n" | wc -c'
expect "xl lists domains" xl list
expect "watches work" xenstore-watch -n 1 /fill/1

say "room again"
expect "the tree is removed, which each watch is told" xenstore-rm /fill
expect "then nodes are written" xenstore-write /more "$LARGE"
expect "and removed" xenstore-rm /more
expect "xl destroy" xl destroy hostile
nothing_left hostile "$id"

say "the one that behaves is served as ever"
expect "it obeys xl shutdown" xl shutdown -w polite
