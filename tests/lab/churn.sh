# Guests that come and go leave the store's memory as it was.
# lab: --store stubdom --memory 8 --maxmem 16 --no-linux --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

round() {
    xl create -q /etc/xen/guest.cfg 'name="churn"' || fail "xl create ended with status $?"
    id=$(domid churn)
    eventually 60 xenstore-exists "/local/domain/$id/data/hello"
    # One way and the other.
    if [ $(($1 % 2)) -eq 0 ]; then
        xl destroy churn
    else
        xl shutdown -w churn >/dev/null
    fi
    eventually 60 gone churn "$id"
}

say "a few rounds, after which every table has the size it needs"
for number in 1 2 3 4; do
    round "$number"
done
told() {
    [ -n "$(store_heap "$1")" ]
}
eventually 60 told "$id"
before=$(store_heap "$id")
# What a guest costs depends on us; on another Xen its end is to be seen, not each byte of it.
rounds=20
[ "$XEN" = 4.17 ] || rounds=8
say "$before bytes are in use; $rounds more rounds"
for number in $(seq "$rounds"); do
    round "$number"
done
eventually 60 told "$id"
after=$(store_heap "$id")
say "$after bytes are in use"
[ "$after" -le $((before + 50 * rounds)) ] ||
    fail "$rounds guests that are gone cost $((after - before)) bytes"
