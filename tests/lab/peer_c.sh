# What these tests expect of a store holds for Xen's daemon in C.
# lab: --store c --timeout 900
GUESTS="g1 g2"
. /lab/store_tools.sh
. /lab/test_xenstore.sh
. /lab/linux_guests.sh
