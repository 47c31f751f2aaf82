# Guests that come and go leave the store's memory as it was.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 420
. /lab/lib.sh

round() {
    xl create -q /etc/xen/guest.cfg 'name="churn"' || fail "xl create ended with status $?"
    id=$(domid churn)
    eventually 30 xenstore-exists "/local/domain/$id/data/hello"
    # One way and the other.
    if [ $(($1 % 2)) -eq 0 ]; then
        xl destroy churn
    else
        xl shutdown -w churn
    fi
    eventually 30 gone churn "$id"
}

say "a few rounds, after which every table has the size it needs"
for number in 1 2 3 4; do
    round "$number"
done
before=$(store_heap)
[ -n "$before" ] || fail "the store does not say how much of its heap is in use"
say "$before bytes are in use; twenty more rounds"
for number in $(seq 20); do
    round "$number"
done
after=$(store_heap)
say "$after bytes are in use"
[ "$after" -le $((before + 1024)) ] ||
    fail "twenty guests that are gone cost $((after - before)) bytes"
