# The conversations of tests/conversations are held over real rings with the image as the store.
# lab: --store stubdom --memory 8 --maxmem 32 --timeout 900
# xen: 4.17 4.20
. /lab/lib.sh

converse stubdom /lab/conversations/*.txt || fail "not all was said as it is written"
