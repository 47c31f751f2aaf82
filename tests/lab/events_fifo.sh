# The store works with FIFO events.
# lab: --store stubdom --memory 8 --maxmem 16 --param events=fifo --timeout 900
. /lab/lib.sh

printed "$(xenstore-read /tool/xenstored/domid)" "Fifo events" ||
    fail "the store does not say that it uses FIFO events"
GUESTS="g1 g2"
. /lab/store_tools.sh
. /lab/test_xenstore.sh
. /lab/linux_guests.sh
