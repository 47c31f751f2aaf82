# Xen's own test-xenstore passes: twelve cases, fifty times each.
# lab: --store stubdom --memory 4 --maxmem 4 --no-linux --timeout 400
# xen: 4.17 4.20
. /lab/lib.sh

test-xenstore -i 50 >/tmp/results 2>&1 || {
    cat /tmp/results
    fail "test-xenstore ended with status $?"
}
cat /tmp/results
equal "no case failed" 0 grep -c failed /tmp/results
equal "twelve cases passed" 12 grep -c 'avg:' /tmp/results
