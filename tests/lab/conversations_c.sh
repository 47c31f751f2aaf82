# The conversations of tests/conversations hold for Xen's daemon in C, but where they say not.
# lab: --store c --timeout 900
. /lab/lib.sh

converse "c-$XEN" /lab/conversations/*.txt || fail "not all was said as it is written"
