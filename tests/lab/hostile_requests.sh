# A guest that wears the store out with requests keeps nobody waiting, and leaves nothing behind.
# lab: --store stubdom --memory 8 --maxmem 16 --timeout 1800
. /lab/lib.sh
. /lab/remains.sh
. /lab/beside.sh

beside nonsense
beside abandon
# Each write is told to 128 watches, which is work of the writer's own making.
AFTER="guest: hears no more" beside "deaf=$HOME_OF_HONEST/data/word" 300

# used_up DOMID: the guest was allowed each quota to the full, and no more.
used_up() {
    local told
    for told in "5 permissions, then Enospc" "2024 bytes of a value, then Enospc" \
        "2048 bytes of a path, then Einval" "1024 paths in a transaction, then Enospc" \
        "whose end is Err(Answer(Enomem))" "128 watches, then Enospc" \
        "values in a transaction, then Enomem" "10 transactions, then Enospc"; do
        expect "$told" printed "$1" "$told"
    done
    xenstore-control quota "$1" >/tmp/used
    for told in "nodes            :     1000 " "watches          :      128 " \
        "transactions     :       10 "; do
        expect "the store says the same: $told" grep -q "^$told" /tmp/used
    done
}
AFTER="guest: has used up everything" beside quotas 0 used_up

# What one request can cost is bounded, others come between two large ones, and nobody waits for more
# than one of a guest's; but some cost more than three small ones. To make a path of as many levels as
# a guest may have nodes, or to remove it, takes some million instructions.
beside deep 3500
# The end of a transaction of 4,096 requests takes some 7 million. Long enough for several of them.
ROUNDS=150 beside replay 20000
