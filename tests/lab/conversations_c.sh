# The conversations of tests/conversations hold for Xen's daemon in C, but where they say not.
# lab: --store c --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

converse "c-$XEN" /lab/conversations/*.txt || fail "not all was said as it is written"
