# The store works with 2-level events and hypercalls through the page.
# lab: --store stubdom --memory 8 --maxmem 16 --param events=2l --param hypercalls=page --timeout 900
. /lab/lib.sh

printed "$(xenstore-read /tool/xenstored/domid)" "TwoLevel events" ||
    fail "the store does not say that it uses 2-level events"
printed "$(xenstore-read /tool/xenstored/domid)" "hypercalls by page" ||
    fail "the store does not say that it uses the hypercall page"
GUESTS="g1 g2"
. /lab/store_tools.sh
. /lab/test_xenstore.sh
. /lab/linux_guests.sh
