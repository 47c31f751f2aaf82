# What these tests expect of a store holds for Xen's daemon in OCaml.
# lab: --store ocaml --timeout 900
GUESTS="g1 g2"
. /lab/store_tools.sh
. /lab/test_xenstore.sh
. /lab/linux_guests.sh
