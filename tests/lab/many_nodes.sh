# A store of 8 MiB holds 40,000 nodes with values of 64 bytes; then it refuses more, and goes on.
# lab: --store stubdom --memory 8 --maxmem 8 --no-linux --timeout 1200
. /lab/lib.sh

VALUE=$(head -c 64 /dev/zero | tr '\0' v)
AT_ONCE=400

# fill_directory PATH COUNT: writes so many nodes below PATH, all or none.
fill_directory() {
    # shellcheck disable=SC2046
    timeout 120 xenstore-write $(awk -v path="$1" -v value="$VALUE" -v count="$2" \
        'BEGIN { while (count-- > 0) print path "/" count, value }') 2>/tmp/refusal
}

say "filling with nodes of 64 bytes, $AT_ONCE a directory"
filled=0
while fill_directory "/fill/$filled" "$AT_ONCE"; do
    filled=$((filled + 1))
    [ "$filled" -lt 400 ] || fail "160,000 nodes of 64 bytes fit into 8 MiB"
done
# What did not fit as a whole was refused as a whole: the rest in small steps.
more=0
while fill_directory "/fill/more/$more" 20; do
    more=$((more + 1))
    [ "$more" -lt 200 ] || fail "4,000 more nodes fit, although $AT_ONCE did not"
done
# A transaction of twenty needs more than its nodes: those that fit by themselves.
last=0
while timeout 60 xenstore-write "/fill/last/$last" "$VALUE" 2>/tmp/refusal; do
    last=$((last + 1))
    [ "$last" -lt 4000 ] || fail "4,000 more nodes fit, although twenty did not"
done
nodes=$((filled * AT_ONCE + more * 20 + last))
say "$nodes nodes with values of 64 bytes fit; then: $(cat /tmp/refusal)"
[ "$nodes" -ge 40000 ] || fail "fewer than 40,000"

say "full"
refuse "one more is refused" "could not write" xenstore-write /fill/beyond "$VALUE"
equal "what is there is read" "$VALUE" xenstore-read /fill/7/7
equal "and listed" "$AT_ONCE" sh -c 'xenstore-list /fill/9 | wc -l'
expect "xl lists domains" xl list
expect "watches work" xenstore-watch -n 1 /fill/1

say "room again"
expect "all is removed" xenstore-rm /fill
expect "then nodes are written" xenstore-write /more "$VALUE"
expect "a guest is created" xl create -q /etc/xen/guest.cfg
id=$(domid guest)
eventually 60 xenstore-exists "/local/domain/$id/data/hello"
expect "the accounts are right" xenstore-control check
expect "it goes" xl destroy guest
eventually 60 gone guest "$id"
